"""On-the-fly distillation, for other LightningModules too: docs/rotation.md."""

from otfkd.distill.checkpoints import Checkpoints, WholeFiles
from otfkd.distill.rotation import TeacherRotation
from otfkd.distill.schedule import plan_schedule
from otfkd.distill.snapshots import SnapshotCache
from otfkd.distill.teacher import TeacherSlot

__all__ = ["Checkpoints", "SnapshotCache", "TeacherRotation", "TeacherSlot", "WholeFiles", "plan_schedule"]
