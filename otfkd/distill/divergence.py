"""What a person is told when a run's numbers stop being numbers."""

import contextlib
from collections.abc import Iterator

from otfkd.base.errors import DivergenceError, UserError
from otfkd.distill.driver import RunDriver


@contextlib.contextmanager
def explain_divergence(driver: RunDriver) -> Iterator[None]:
    """Add to what diverged when it was, what there is to go back to, and what to do.

    Raises:
        UserError: in the place of a DivergenceError.
    """
    try:
        yield
    except DivergenceError as error:
        checkpoints = driver.checkpoints
        kept = "no checkpoint was written before"
        if checkpoints.last.is_file():
            kept = f"the last good checkpoint is {checkpoints.last}, of step {checkpoints.read_last()['global_step']}"
        left_out = ", or leave such steps out with trainer.on_nonfinite=skip" if error.of_a_step else ""
        raise UserError(
            f"training diverged after step {driver.step}: {error}; {kept}: lower optimizer.lr or raise the "
            f"objective's temperatures{left_out}"
        ) from error
