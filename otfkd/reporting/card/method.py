"""What a card says of how a model learnt: its losses, whether from labels, and whether from a teacher."""

from otfkd.config.objective import ObjectiveConfig
from otfkd.config.sections import ModelConfig
from otfkd.config.terms import Term, reads
from otfkd.reporting.card.history import UNKNOWN, History
from otfkd.reporting.card.schedule import exchange, restarts


def method(history: History) -> str:
    """The losses and the teacher's part in them, a sentence a line."""
    match history.config.objective:
        case None:
            return f"{UNKNOWN.capitalize()}: the run keeps no objective that this version of otfkd can read."
        case ObjectiveConfig(fn=str(path)) as objective:
            taught = ", and of the embeddings of those who teach" if history.distils else ""
            lines = [
                f"A whole loss of the author's own, `{path}`, of a sentence's two embeddings under different dropout"
                f"{taught}."
            ]
        case ObjectiveConfig(supervised=None) as objective:
            lines = _from_sentences(objective)
        case objective:
            lines = [_from_labels(objective), "There is no teacher: the labels alone are learnt from."]
    if history.config.student is not None and history.config.student.init == "teacher":
        lines.append("The student starts from the initial teacher's weights.")
    lines += _dropout(history.config.model)
    if history.distils:
        lines += [line for term in objective.all_terms if term.of_teacher for line in _distillation(term)]
        lines += _exchange(history, objective)
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
    if objective.dims:
        lines.append(
            f"Every loss of embeddings is its mean over their first {', '.join(map(str, objective.dims))} numbers "
            "(Matryoshka, Kusupati et al. 2022), so that these are embeddings too."
        )
    for term in objective.all_terms:
        if term.what == "consistency":
            lines.append(
                "The similarities that either view gives are drawn together, with weight "
                f"{term.weight:g} (the ranking consistency of RankCSE, Liu et al. 2023)."
            )
        if term.what == "mlm":
            lines.append(f"SimCSE's masked language loss is added, with weight {term.weight:g}.")
        if not term.of_teacher:
            lines += _ramps(term)
    return lines


def _distillation(term: Term) -> list[str]:
    """What of a teacher is learnt, and how much it weighs."""
    lines = [f"{_matched(term)}, with weight {term.weight:g}."]
    if not term.compares_embeddings:
        views = "within its first view" if term.lists == "one_view" else "between its two views"
        lines.append(f"The student's cosines are those {views}.")
    lines += _ramps(term)
    if reads(term.what, "group_p") and term.group_p is not None:
        lines.append(f"The teacher's cosines are shuffled within groups of rank, p = {term.group_p:g}.")
    if reads(term.what, "group_size") and term.group_size is not None:
        lines.append(f"The teacher's cosines are shuffled within groups of rank, {term.group_size} sentences each.")
    return lines


def _ramps(term: Term) -> list[str]:
    """How its weight rises and falls."""
    lines, shape = [], term.ramp_shape
    if term.ramp is not None:
        since = {"run": "the first", "first": "the first teacher", "rotation": "each teacher anew"}[term.ramp]
        lines.append(f"That weight is reached in a {shape} rise over {term.ramp_steps} steps from {since}.")
    if term.fade_steps is not None:
        lines.append(f"That weight falls to 0, in a {shape} fall over the last {term.fade_steps} steps.")
    return lines


def _matched(term: Term) -> str:
    student = _moving(term.temperature_student, term.temperature_student_final)
    teacher = _moving(term.temperature_teacher, term.temperature_teacher_final)
    of_cosines = "The student also learns the cosines within the batch that a teacher gives"
    of_vectors = "The student also learns the teacher's vectors themselves"
    mapped = "through a linear map where widths differ, which is not exported"
    match term.what:
        case "ce" | "kl" | "js":
            return (
                f"{of_cosines}: each sentence's softmax over the others, by {_divergence(term)}, at temperature "
                f"{student} of the student and {teacher} of the teacher"
            )
        case "listmle":
            return (
                f"{of_cosines}: the order they put a sentence's others in, by its likelihood at temperature {student} "
                "(ListMLE, as in RankCSE, Liu et al. 2023)"
            )
        case "rank_margin":
            return (
                f"{of_cosines}: for each two that they order, the student's are to be {term.margin:g} apart "
                "(pairwise margins)"
            )
        case "mse":
            return f"{of_vectors}, by squared error, {mapped}"
        case "cosine":
            return f"{of_vectors}, by 1 - cosine, {mapped}"
        case path:
            return f"{of_cosines}, by a loss of the author's own, `{path}`"


def _divergence(term: Term) -> str:
    match term.what, term.lists:
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
    by_vectors = {term.compares_embeddings for term in objective.all_terms if term.of_teacher}
    compared = "" if objective.fn is not None else "losses against those who teach together"
    if False in by_vectors:
        vectors = ", and the losses against their vectors," if True in by_vectors else ""
        compared = f"similarities of those who teach together{vectors}"
    return exchange(config.schedule, config.teacher, members=history.initial_members, compared=compared)
