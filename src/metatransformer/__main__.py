"""``python -m metatransformer`` is the command ``metatransformer``."""

import sys

from metatransformer.faces.cli import main

if __name__ == "__main__":
    sys.exit(main())
