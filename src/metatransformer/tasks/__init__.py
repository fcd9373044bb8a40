"""Tasks by name."""

from metatransformer.tasks.classify import Classify
from metatransformer.tasks.forecast import Forecast
from metatransformer.tasks.head import Head
from metatransformer.tasks.multilabel import Multilabel
from metatransformer.tasks.regress import Regress
from metatransformer.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "regress": Regress,
    "forecast": Forecast,
    "multilabel": Multilabel,
}

__all__ = ["TASKS", "Classify", "Forecast", "Head", "Multilabel", "Regress", "Task"]
