"""The command ``metatransformer``."""

from metatransformer.faces.cli.main import main

__all__ = ["main"]
