"""Real data sets as data: where their files lie, how they are split, what they are scored by.

One file of this folder holds the data sets of one modality, as a constant ``DATA_SETS``. A data set is one or more
folds; a fold is a list of records whose split is ``train`` or ``test`` (and ``val`` where it is official). Nothing of
the data is in this repository; ``source`` says where it is to be had.
"""

import importlib
import pkgutil

from metatransformer.bench.datasets._base import DataSet, Fold, Published, digest

__all__ = ["DATA_SETS", "DataSet", "Fold", "Published", "digest"]


def _found() -> dict[str, DataSet]:
    """Returns the data sets of every file here by name, in the order of the files."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {data_set.name: data_set for module in modules for data_set in module.DATA_SETS}


DATA_SETS = _found()
