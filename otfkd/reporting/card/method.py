"""What a card says of how a model learnt: its losses, whether from labels, and whether from a teacher."""

from otfkd.config.sections import ModelConfig, ObjectiveConfig
from otfkd.reporting.card.history import UNKNOWN, History
from otfkd.reporting.card.schedule import exchange, restarts


def method(history: History) -> str:
    """The losses and the teacher's part in them, a sentence a line."""
    match history.config.objective:
        case None:
            return f"{UNKNOWN.capitalize()}: the run keeps no objective that this version of otfkd can read."
        case ObjectiveConfig(supervised=None) as objective:
            lines = _from_sentences(objective)
        case objective:
            lines = [_from_labels(objective), "There is no teacher: the labels alone are learnt from."]
    if history.config.student is not None and history.config.student.init == "teacher":
        lines.append("The student starts from the initial teacher's weights.")
    lines += _dropout(history.config.model)
    if history.distils:
        lines += [*_distillation(objective), *_exchange(history, objective)]
    else:
        lines += _nothing_distilled(history)
    return "\n".join(lines)


def _dropout(model: ModelConfig | None) -> list[str]:
    """The rates that the run chose for itself."""
    chosen = (
        () if model is None else ((model.dropout, "hidden states"), (model.attention_dropout, "attention's weights"))
    )
    told = [f"{rate:g} of {where}" for rate, where in chosen if rate is not None]
    return [f"In training dropout is {' and '.join(told)}."] if told else []


def _nothing_distilled(history: History) -> list[str]:
    teacher = history.config.teacher
    if teacher is None or teacher.source == "none":
        return []
    return [
        "Nothing is distilled: the teacher's term has weight 0.", *restarts(history.config.schedule, teacher)
    ]  # fmt: skip


def _from_labels(objective: ObjectiveConfig) -> str:
    match objective.supervised:
        case "simcse":
            return (
                "Supervised SimCSE (Gao et al. 2021): a sentence attracts what it entails, and what contradicts it "
                f"repels it, as the batch's other examples do, at temperature {objective.temperature:g}."
            )
        case "cosent":
            return (
                "CoSENT (Huang et al. 2024): the cosines of a batch's pairs are ranked as their grades are, at "
                f"temperature {objective.temperature:g}."
            )
        case "cosine_regression":
            return (
                "Cosine regression (Reimers & Gurevych 2019): a pair's cosine is fitted to its grade, as a share of "
                "the highest, by squared error."
            )
        case "softmax":
            return (
                "Classification (Reimers & Gurevych 2019): a linear classifier of (u, v, |u - v|) learns whether a "
                "pair is entailment, neutral or contradiction; the classifier is not exported."
            )
        case None:
            raise ValueError("an objective without labels")


def _from_sentences(objective: ObjectiveConfig) -> list[str]:
    lines = [
        "Unsupervised SimCSE (Gao et al. 2021): a sentence's two embeddings under different dropout attract each "
        f"other, and those of the batch's other sentences repel, at temperature {objective.temperature:g}."
    ]
    if objective.mask_repeats:
        lines.append("Equal sentences of a batch do not repel each other, and are in no list of similarities.")
    if objective.consistency_weight:
        lines.append(
            "The similarities that either view gives are drawn together, with weight "
            f"{objective.consistency_weight:g} (the ranking consistency of RankCSE, Liu et al. 2023)."
        )
    if objective.mlm_weight:
        lines.append(f"SimCSE's masked language loss is added, with weight {objective.mlm_weight:g}.")
    return lines


def _distillation(objective: ObjectiveConfig) -> list[str]:
    """What of a teacher is learnt, and how much it weighs."""
    lines = [f"{_matched(objective)}, with weight {objective.kd_weight:g}."]
    if not objective.compares_embeddings:
        views = "within its first view" if objective.lists == "one_view" else "between its two views"
        lines.append(f"The student's cosines are those {views}.")
    if objective.kd_ramp is not None:
        since = "the first teacher" if objective.kd_ramp == "first" else "each teacher anew"
        lines.append(
            f"That weight is reached in a {objective.kd_ramp_shape} rise over {objective.kd_ramp_steps} steps from "
            f"{since}."
        )
    if objective.group_p is not None:
        lines.append(f"The teacher's cosines are shuffled within groups of rank, p = {objective.group_p:g}.")
    if objective.group_size is not None:
        lines.append(
            f"The teacher's cosines are shuffled within groups of rank, {objective.group_size} sentences each."
        )
    return lines


def _matched(objective: ObjectiveConfig) -> str:
    student = _moving(objective.temperature_student, objective.temperature_student_final)
    teacher = _moving(objective.temperature_teacher, objective.temperature_teacher_final)
    of_cosines = "The student also learns the cosines within the batch that a teacher gives"
    of_vectors = "The student also learns the teacher's vectors themselves"
    mapped = "through a linear map where widths differ, which is not exported"
    match objective.kd:
        case "ce" | "kl" | "js":
            return (
                f"{of_cosines}: each sentence's softmax over the others, by {_divergence(objective)}, at temperature "
                f"{student} of the student and {teacher} of the teacher"
            )
        case "listmle":
            return (
                f"{of_cosines}: the order they put a sentence's others in, by its likelihood at temperature {student} "
                "(ListMLE, as in RankCSE, Liu et al. 2023)"
            )
        case "rank_margin":
            return (
                f"{of_cosines}: for each two that they order, the student's are to be {objective.margin:g} apart "
                "(pairwise margins)"
            )
        case "mse":
            return f"{of_vectors}, by squared error, {mapped}"
        case "cosine":
            return f"{of_vectors}, by 1 - cosine, {mapped}"
        case path:
            return f"{of_cosines}, by a loss of the author's own, `{path}`"


def _divergence(objective: ObjectiveConfig) -> str:
    match objective.kd, objective.lists:
        case "kl", _:
            return "Kullback-Leibler divergence"
        case "js", _:
            return "Jensen-Shannon divergence"
        case _, "two_views":
            return "cross-entropy (ListNet, as in RankCSE, Liu et al. 2023)"
        case _:
            return "cross-entropy (DistillCSE, Xu et al. 2023)"


def _moving(start: float, final: float | None) -> str:
    return f"{start:g}" if final is None else f"{start:g} (linearly to {final:g} at the last step)"


def _exchange(history: History, objective: ObjectiveConfig) -> list[str]:
    config = history.config
    return exchange(
        config.schedule, config.teacher, members=history.initial_members, vectors=objective.compares_embeddings
    )
