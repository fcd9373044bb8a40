"""MLflow: a run in ``mlruns/`` beside the run folder, or where ``MLFLOW_TRACKING_URI`` says."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from metatransformer.fit.trackers import Told

TAG = "metatransformer.run"
MOST = 100  # of one call of MLflow's
LONGEST = 6000  # letters of a setting


class Run:
    """One run there."""

    def __init__(self, told: Told) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder is refused otherwise
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI") or (told.folder.absolute().parent / "mlruns").as_uri()
        self.client: Any = MlflowClient(tracking_uri=place)
        known = self.client.get_experiment_by_name(told.project)
        experiment = known.experiment_id if known else self.client.create_experiment(told.project)
        same = self.client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{told.id}'")
        run = same[0] if same else self.client.create_run(experiment, run_name=told.folder.name, tags={TAG: told.id})
        self.id = run.info.run_id
        if not same:
            settings = [Param(key, str(value)[:LONGEST]) for key, value in told.settings.items()]
            for first in range(0, len(settings), MOST):
                self.client.log_batch(self.id, params=settings[first : first + MOST])

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Tells values of one step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(name), value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def end(self, scores: Mapping[str, float]) -> None:
        """Tells the last scores, and that the run is done."""
        self.add(scores, step=0)
        self.client.set_terminated(self.id)


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)
