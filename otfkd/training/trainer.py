"""Lightning's Trainer as a run uses it, and what is set in the process for as long as the run lasts."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from otfkd.config.schema import Config
from otfkd.distill.checkpoints import WholeFiles
from otfkd.training.launch import cluster


class _Trainer(L.Trainer):
    """Leaves signals to the run's stop flag.

    Lightning's handler of SIGTERM ends a run between the micro-batches of a step, and speaks to the other processes
    from wherever the signal finds it, for which all of them may wait for ever. It has no switch: this is the one place
    that touches its private connector.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def make_trainer(config: Config, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's Trainer of a run, which counts optimizer steps alone."""
    return _Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        # Looking for unused parameters keeps DDP from regrouping gradients after its first step, which a resume begins
        # anew: with three processes or more their sums would then round otherwise.
        strategy=DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if config.processes > 1 else "auto",
        precision="bf16-mixed" if config.precision.compute == "bfloat16" else "32-true",
        # Everything is counted in optimizer steps: the run is one epoch, and evaluation and saving are the callback's.
        max_epochs=1,
        max_steps=config.trainer.max_steps,
        accumulate_grad_batches=config.trainer.accumulate,
        deterministic=config.precision.deterministic,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[WholeFiles(), cluster(config)],
        callbacks=callbacks,
    )


@contextlib.contextmanager
def process_settings(config: Config) -> Iterator[None]:
    """Threads, matrix precision, kernels and a silent Lightning for one run: the next job must not inherit them."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministically = torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic  # a module whose one attribute type checkers do not see
    fills = deterministic.fill_uninitialized_memory
    torch.set_num_threads(config.trainer.threads or threads)
    torch.set_float32_matmul_precision("high" if config.precision.tf32 else "highest")
    # As Lightning will say again: what comes before it, as a teacher's embeddings, is to find the same kernels.
    torch.use_deterministic_algorithms(config.precision.deterministic)
    if config.precision.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # A twentieth of a step, and determinism does not need it: all memory is written before it is read.
    deterministic.fill_uninitialized_memory = False
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    lightning.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # About loaders and loggers that are not used here.
            warnings.filterwarnings("ignore", module="lightning.pytorch")
            yield
    finally:
        lightning.setLevel(level)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministically)
        deterministic.fill_uninitialized_memory = fills
