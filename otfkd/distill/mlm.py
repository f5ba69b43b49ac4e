"""SimCSE's auxiliary loss: the student goes on as a masked language model (Gao et al. 2021, sec. 3 and appendix)."""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from otfkd.base.errors import UserError
from otfkd.base.processes import all_gather
from otfkd.data.collate import Tokens
from otfkd.models.encoder import Encoder
from otfkd.models.registry import quiet
from otfkd.models.saved import transformer_folder

_IGNORED = -100  # a label that is not to be predicted


class MaskedLanguage(nn.Module):
    """The pretrained prediction head over the student's own backbone: trained and checkpointed, never exported.

    Args:
        model: a masked language model of the backbone's architecture; its own backbone is let go.
        student: whose backbone and tokenizer it uses.
        probability: the share of tokens to be predicted.
    """

    def __init__(self, model: PreTrainedModel, student: Encoder, probability: float):
        super().__init__()
        setattr(model, model.base_model_prefix, student.backbone)
        model.tie_weights()
        # Only the head is part of this module: the backbone belongs to the student.
        parts = {name: part for name, part in model.named_children() if part is not student.backbone}
        self.head = nn.ModuleDict(parts)
        # In a tuple, or torch would take the model, and the student's backbone in it, for a part of this module.
        self._model = (model,)
        self.tokenizer = student.tokenizer
        self.probability = probability

    def forward(self, tokens: Tokens, generator: torch.Generator) -> Tensor:
        """The mean cross-entropy of the masked tokens, a float32 scalar; 0 for a batch in which chance masked none.

        The mean is over the shares of all processes.
        """
        ids, labels = mask_tokens(tokens.input_ids, self.tokenizer, self.probability, generator)
        (model,) = self._model
        logits = model(input_ids=ids, attention_mask=tokens.attention_mask).logits
        losses = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="sum")
        # Shares of a batch differ in how many tokens chance masked.
        asked = all_gather((labels != _IGNORED).sum().view(1)).sum()
        return all_gather(losses.view(1)).sum() / asked.clamp(min=1)


def mask_tokens(
    ids: Tensor, tokenizer: PreTrainedTokenizerBase, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """BERT's masking (Devlin et al. 2019, sec. 3.1): 80 % become the mask, 10 % any token, 10 % stay.

    Args:
        ids: (B, L).
        tokenizer: names the mask and the special tokens, which are never masked.
        probability: of each other token to be predicted.
        generator: on the CPU, so that every device masks alike.

    Returns:
        The ids to read and the labels, (B, L) each; a label is -100 where nothing is to be predicted.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, device=ids.device))
    drawn = torch.rand(ids.shape, generator=generator).to(ids.device).masked_fill(special, 1.0)
    others = torch.randint(len(tokenizer), ids.shape, generator=generator).to(ids.device)
    masked = ids.where(drawn >= 0.9 * probability, others)
    masked = masked.masked_fill(drawn < 0.8 * probability, int(tokenizer.mask_token_id))
    return masked, ids.masked_fill(drawn >= probability, _IGNORED)


def load_masked_language(folder: Path, student: Encoder, probability: float) -> MaskedLanguage:
    """The pretrained head in a model's folder, over a student that was loaded from it.

    Raises:
        UserError: the folder has no such head.
    """
    config = copy.deepcopy(student.backbone.config)
    try:
        with quiet():
            model, report = AutoModelForMaskedLM.from_pretrained(
                transformer_folder(folder), config=config, dtype=torch.float32, use_safetensors=True,
                local_files_only=True, output_loading_info=True,
            )  # fmt: skip
    except Exception:  # transformers raises many kinds for files that are not what they should be
        raise _headless(folder) from None
    if _of_head(report["missing_keys"], model) or student.tokenizer.mask_token_id is None:
        raise _headless(folder)
    return MaskedLanguage(model, student, probability)


def _of_head(names: Iterable[str], model: PreTrainedModel) -> list[str]:
    return [name for name in names if not name.startswith(f"{model.base_model_prefix}.")]


def _headless(folder: Path) -> UserError:
    return UserError(
        f"{folder} has no pretrained masked-language head, which objective.mlm_weight asks for: "
        "set objective.mlm_weight=0, or give a model that was saved with it, as model=bert_base is"
    )
