"""A run in MLflow, by Lightning's own logger: one a run's folder, which goes on when training resumes."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.loggers import MLFlowLogger

from otfkd.base.files import write_text
from otfkd.config.differences import flat
from otfkd.training.run import Run
from otfkd.training.wandb_run import run_name

log = logging.getLogger("otfkd")

_STORE = "MLFLOW_TRACKING_URI"  # as MLflow itself reads it
_FILE = "mlflow.db"  # beside the runs that it is of, where no store is named


class MLflowRun:
    """Points go in as metrics; the run's id stays in its folder, and what the store has of it is not sent again."""

    def __init__(self, run: Run):
        path = run.folder.logger_id_file("mlflow")
        kept = path.read_text(encoding="utf-8") if path.is_file() else None
        store = os.environ.get(_STORE) or f"sqlite:///{Path(run.config.paths.runs) / _FILE}"
        with _unchanged_process():
            self._logger = MLFlowLogger(run.config.logger.project, run_name(run), store, run_id=kept)
            client, identity = self._logger.experiment, self._logger.run_id
        assert identity is not None
        if kept is None:
            write_text(path, identity)
            facts = {"config_hash": run.hash, **flat(run.config.model_dump(mode="json"))}
            self._logger.log_hyperparams(facts)
        else:
            client.update_run(identity, status="RUNNING")
        known = client.get_run(identity).data.metrics
        self._last = {name: max(one.step for one in client.get_metric_history(identity, name)) for name in known}
        log.info("MLflow: `mlflow ui --backend-store-uri %s` shows it", store)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, -1)}
        if new:
            self._logger.log_metrics(new, step)

    def finalize(self, status: str) -> None:
        self._logger.finalize(status)


@contextlib.contextmanager
def _unchanged_process() -> Iterator[None]:
    """Undo that Lightning's logger names its store to the process and its children: the next job has another."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by the import
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
    before = os.environ.get(_STORE)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="mlflow")  # of how it uses SQLAlchemy
            yield
    finally:
        mlflow.set_tracking_uri(before)
