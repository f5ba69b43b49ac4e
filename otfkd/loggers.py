"""Loggers that mirror a run's metrics; nothing is sent anywhere unless one is chosen."""

import contextlib
from collections.abc import Iterator

from lightning.pytorch.loggers import Logger

from otfkd.prepare import Prepared


def make_logger(run: Prepared) -> Logger | None:
    """The logger a run chose, None where it chose none."""
    if run.config.logger.name == "none":
        return None
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(
        project=run.config.logger.project, offline=run.config.logger.offline, save_dir=run.folder,
        name=f"{run.config.name}-{run.hash}-s{run.config.seed}", id=f"{run.hash}-s{run.config.seed}",
        group=run.config.name, config=run.config.model_dump(mode="json"),
    )  # fmt: skip


@contextlib.contextmanager
def finishing(mirror: Logger | None) -> Iterator[None]:
    """Close a logger, and say whether the run failed."""
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        if mirror is not None:
            import wandb

            mirror.finalize(status)
            # The next job of a sweep must not continue this run.
            wandb.finish(exit_code=0 if status == "success" else 1)
