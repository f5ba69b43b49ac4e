"""On-the-fly knowledge distillation of sentence embeddings: a student trains while its own cached past teaches it.

Everything public is here: `train`, `evaluate` and `load` do what the commands do; `TeacherRotation` rotates teachers in
any LightningModule.
"""

import importlib
from typing import TYPE_CHECKING, Any

from otfkd.base.version import __version__

if TYPE_CHECKING:
    from otfkd.config.composition import load_config as load_config
    from otfkd.config.sections import Schedule as Schedule
    from otfkd.distill.checkpoints import WholeFiles as WholeFiles
    from otfkd.distill.rotation import TeacherRotation as TeacherRotation
    from otfkd.distill.schedule import plan_schedule as plan_schedule
    from otfkd.distill.teacher import TeacherSlot as TeacherSlot
    from otfkd.evaluation.api import evaluate as evaluate
    from otfkd.evaluation.api import load as load
    from otfkd.evaluation.sentences import SentenceEncoder as SentenceEncoder
    from otfkd.training.train import train as train


# Imported when they are asked for, so that `--help` pays for neither torch nor transformers.
_PUBLIC = {
    "SentenceEncoder": "otfkd.evaluation.sentences",
    "Schedule": "otfkd.config.sections",
    "TeacherRotation": "otfkd.distill.rotation",
    "TeacherSlot": "otfkd.distill.teacher",
    "WholeFiles": "otfkd.distill.checkpoints",
    "evaluate": "otfkd.evaluation.api",
    "load": "otfkd.evaluation.api",
    "load_config": "otfkd.config.composition",
    "plan_schedule": "otfkd.distill.schedule",
    "train": "otfkd.training.train",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'otfkd' has no attribute {name!r}")
