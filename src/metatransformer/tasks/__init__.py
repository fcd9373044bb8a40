"""Tasks by name."""

from metatransformer.tasks.classify import Classify
from metatransformer.tasks.head import Head
from metatransformer.tasks.multilabel import Multilabel
from metatransformer.tasks.regress import Regress
from metatransformer.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classify": Classify, "regress": Regress, "multilabel": Multilabel}

__all__ = ["TASKS", "Classify", "Head", "Multilabel", "Regress", "Task"]
