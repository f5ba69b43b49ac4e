"""The LightningModule of fine-tuning: a student that learns from labelled examples, without a teacher."""

from torch import Tensor, nn

from otfkd.config.schema import Config
from otfkd.data.collate import LabelledBatch
from otfkd.data.labelled import CLASSES
from otfkd.distill.gradcache import in_chunks
from otfkd.distill.schedule import Plan
from otfkd.distill.training import TrainingModule, mean
from otfkd.finetune.losses import classification, cosent, cosine_regression, supervised_info_nce
from otfkd.models.encoder import Encoder, Head


class FineTuning(TrainingModule):
    """Trains a student by the supervised objective that its config names.

    Args:
        student: backbone and pooler.
        head: SimCSE's head, used in training only.
        config: the run's config.
        plan: when the learning rate has decayed.

    Attributes:
        classifier: of the objective `softmax`, used in training only.
    """

    def __init__(self, student: Encoder, head: Head | None, config: Config, plan: Plan):
        super().__init__(student, head, config, plan)
        self.losses: list[Tensor] = []  # of the micro-batches since the last optimizer step
        self.classifier: nn.Linear | None = None
        if config.objective.supervised == "softmax":
            self.draw_from("classifier")
            self.classifier = nn.Linear(3 * student.width, len(CLASSES))

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        self.draw_from("dropout", batch_idx)
        embeddings = in_chunks(self.student, batch.tokens, self.config.trainer.chunk)
        first, second, *third = self.project(embeddings).chunk(batch.columns)
        loss = self.loss(first, second, third, batch.labels)
        self.losses.append(loss.detach())
        return loss

    def loss(self, first: Tensor, second: Tensor, third: list[Tensor], labels: Tensor) -> Tensor:
        """The objective on the embeddings of each example's sentences, (B, d) each, and their labels."""
        objective = self.config.objective
        match objective.supervised:
            case "simcse":
                return supervised_info_nce(first, second, third[0], objective.temperature)
            case "cosent":
                return cosent(first, second, labels, objective.temperature)
            case "cosine_regression":
                return cosine_regression(first, second, labels)
            case "softmax":
                assert self.classifier is not None
                return classification(first, second, labels, self.classifier)
            case None:
                raise ValueError("fine-tuning needs a supervised objective")

    def step_losses(self) -> dict[str, float]:
        losses, self.losses = self.losses, []
        return {"loss": mean(losses)}
