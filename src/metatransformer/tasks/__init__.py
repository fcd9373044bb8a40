"""The tasks by name: each file here, and each module announced under ``metatransformer.tasks``.

A fifth task is one new file in this folder, or a module of a package of your own (see ``core.registry``), with a
constant ``TASK``: a subclass of ``core.task.Task``. Nothing else asks which task it is.
"""

from typing import TYPE_CHECKING

from metatransformer.core.registry import Registry

if TYPE_CHECKING:
    from metatransformer.core.task import Score, Task


def _is_task(found: object) -> bool:
    from metatransformer.core.task import Task  # takes a second, for torch; the names alone are wanted by --help

    return isinstance(found, type) and issubclass(found, Task)


TASKS = Registry(__name__, kind="task", constant="TASK", check=_is_task)


def task_names() -> list[str]:
    """Returns the names of all tasks, sorted, without importing them."""
    return TASKS.names()


def get_task(name: str) -> "type[Task]":
    """Returns the task of that name.

    Raises:
        UsageError: there is none; the message lists the valid names. Or a package announces one that cannot be used.
    """
    return TASKS.get(name)


def known_score(metric: str) -> "Score":
    """Returns what the tasks know of a metric by its name; of one that none has, that more is better."""
    from metatransformer.core.task import Score

    return next((task.scores[metric] for task in TASKS.usable() if metric in task.scores), Score())
