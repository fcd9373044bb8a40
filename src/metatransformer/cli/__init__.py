"""The command ``metatransformer``."""

from metatransformer.cli.main import main

__all__ = ["main"]
