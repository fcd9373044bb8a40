"""The tasks by name: each file here, and each module announced under ``metatransformer.tasks``.

A fifth task is one new file in this folder, or a module of a package of your own (see ``core.registry``), with a
constant ``TASK``: a subclass of ``core.task.Task``. Nothing else asks which task it is.
"""

from typing import TYPE_CHECKING

from metatransformer.core.registry import Registry

if TYPE_CHECKING:
    from metatransformer.core.task import Score, Task

TASKS: "Registry[type[Task]]" = Registry(__name__, kind="task", constant="TASK", base="metatransformer.core.task:Task")
task_names = TASKS.names
get_task = TASKS.get


def known_score(metric: str) -> "Score":
    """Returns what the tasks know of a metric by its name; of one that none has, that more is better."""
    from metatransformer.core.task import Score  # takes a second, for torch; the names alone are wanted by --help

    known = ({**task.told, **task.scores} for task in TASKS.usable())
    return next((scores[metric] for scores in known if metric in scores), Score())
