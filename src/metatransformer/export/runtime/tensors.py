"""Prepared samples: NPZ files that hold the inputs of the graph of one sample, by name, without the batch axis.

What makes them of your files is the Python package metatransformer (``metatransformer.export.prepared``).
"""

import numpy as np


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    del settings
    with np.load(path) as arrays:
        yield str(path), dict(arrays)
