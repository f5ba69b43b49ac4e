"""A run's plan in words: what it reads, what is due when, and what it will take."""

from collections.abc import Iterable, Sequence

from otfkd.base.memory import in_words
from otfkd.config.objective import ObjectiveConfig
from otfkd.config.schema import Config
from otfkd.config.sections import Schedule
from otfkd.config.terms import Term, is_own, reads
from otfkd.data.corpus import Corpus
from otfkd.data.labelled import Examples
from otfkd.data.sts import Suite
from otfkd.data.tokens import TokenCache
from otfkd.distill.schedule import Plan
from otfkd.models.dropout_rates import told_rates
from otfkd.models.encoder import Encoder
from otfkd.training.needs import at_once, disk, memory, parameter_count
from otfkd.training.result import TrainResult
from otfkd.training.run import Models, Run
from otfkd.training.teacher_embeddings import embedding_files
from otfkd.training.tokens import read_tokens
from otfkd.training.views import views_cosine


def describe(run: Run, models: Models) -> str:
    """The plan in words: data, steps, what is due when, and what it will take."""
    config, plan, student, teachers = run.config, run.plan, models.student, models.teachers
    rows = [
        ("run", f"{run.folder} ({run.folder.state})"),
        ("student", f"{run.base_folder}, pooler {student.pooler}, {parameter_count(student):,} parameters"),
        ("teacher", _teacher_line(run, teachers)),
        *_embeddings_lines(run, teachers),
        *_data_lines(run, student),
        *_objective_lines(config.objective, student.width),
        ("evaluate", f"{config.evaluation.select or run.suite.dev.name} after {_steps(plan.evaluate)}"),
        ("cache", f"after {_steps(plan.cache)}"),
        ("rotate", _rotation_line(plan, config.schedule)),
        *_patience_lines(plan),
        ("checkpoint", f"after {_steps(plan.checkpoint)}"),
        ("test", ", ".join([_test_line(run.suite), *(f"then evaluation={name}" for name in config.evaluation.also)])),
        *_parts_lines(run),
        ("memory", f"about {in_words(memory(run, student, teachers))}{' each' if config.processes > 1 else ''}"),
        ("disk", f"about {in_words(disk(run, student))}"),
    ]
    return "\n".join(f"{name:<11}{value}" for name, value in rows)


def _patience_lines(plan: Plan) -> list[tuple[str, str]]:
    """When dev scores end the run."""
    if plan.patience is None:
        return []
    counted = f"dev scores after step {plan.fills}" if plan.fills else "dev scores"
    return [("stop early", f"after {plan.patience} {counted} without a new best")]


def planned(run: Run, models: Models) -> TrainResult:
    """What a dry run comes to."""
    return TrainResult(run.folder.path, "planned", describe(run, models), [])


def _test_line(suite: Suite) -> str:
    """What is scored after training, and how much of it has helped to choose."""
    known = ", ".join(f"{count:,} pairs of {name}" for name, count in suite.dev_in_test().items())
    told = f" ({known} are {suite.dev.name}'s too)" if known else ""
    return (", ".join(task.name for task in suite.test) or "nothing") + told


def _data_lines(run: Run, student: Encoder) -> list[tuple[str, str]]:
    """What is read, how often, and what a batch makes of it."""
    config, data = run.config, run.data
    unit = "examples" if isinstance(data, Examples) else "sentences"
    batches = f"{run.plan.max_steps} optimizer steps of {config.trainer.accumulate} x {config.data.batch_size} {unit}"
    if config.trainer.overfit_batches:
        batches += f", the same {config.trainer.overfit_batches * config.data.batch_size} over and over"
    dropout = told_rates(student.backbone)
    if isinstance(data, Corpus):
        tokens = read_tokens(run, data, student)
        cosine = f"the two views of a sentence have a mean cosine of {views_cosine(run, student, tokens):.3f}"
        lines = [
            ("dropout", f"{dropout}; {cosine}"),
            ("corpus", f"{data.name}, {run.size:,} sentences, read {run.passes:.2f} times"),
            ("sentences", _sentences_line(config, tokens, repeats_count=True)),
            ("steps", batches),
        ]
    else:
        dropped = f" ({data.left_out} more are dev's and left out)" if data.left_out else ""
        seen = run.fine_tuned.trained_on if run.fine_tuned is not None else {}
        told = ", ".join(f"{count} of {name}" for name, count in seen.items())
        lines = [
            ("dropout", dropout),
            ("examples", f"{data.name}, {run.size:,} {data.what}{dropped}, read {run.passes:.2f} times"),
            ("steps", f"{batches}, objective {config.objective.supervised}"),
            (
                "sentences",
                _sentences_line(config, read_tokens(run, data.corpus(run.cache), student), repeats_count=False),
            ),
            ("trained on", f"test pairs too: {told}" if told else "no test pair"),
        ]
    lines.append(("processes", f"{config.processes}, {_share(config)} of those {unit} each"))
    if config.chunked:
        lines.append(
            (
                "chunks",
                f"{at_once(config)} of a batch's {config.read_at_once // config.processes} embedded at once, "
                "each twice: for the loss of the whole batch, and to go back through",
            )
        )
    if config.negatives_per_anchor:
        lines.append(("negatives", f"{config.negatives_per_anchor} per anchor (accumulation adds none)"))
    return lines


def _sentences_line(config: Config, tokens: TokenCache, *, repeats_count: bool) -> str:
    """How many sentences are not read as a user may think they are; those of labelled examples may well repeat."""
    line = f"{_part(tokens.cut, len(tokens))} cut at {config.data.max_length} tokens"
    if not repeats_count:
        return line
    advice = " (data.unique=true leaves them out)" if tokens.repeats else ""
    return f"{line}, {_part(tokens.repeats, len(tokens))} a repeat of an earlier one{advice}"


def _part(some: int, of: int) -> str:
    if not some:
        return "none"
    return f"{100 * some / of:.1f} %" if some / of >= 0.001 else "less than 0.1 %"


def _rotation_line(plan: Plan, schedule: Schedule) -> str:
    """When a rotation takes place, what it installs, who stays, and what begins again."""
    if plan.follows is not None:
        return f"the student's moving average teaches from step {plan.follows} on, anew after every step"
    if not plan.rotate:
        return "never"
    source = {
        "current": "the student",
        "best": "the best snapshot since the last rotation",
        "ema": f"the student's moving average (decay {schedule.ema.decay:g}, {schedule.ema.shape})",
        "average": f"the mean of the last {schedule.average_last} snapshots' weights",
    }[schedule.source]
    taught = {
        "replace": "teaches",
        "pool": f"joins a pool of the last {schedule.pool_size}",
        "pool_initial": f"joins the initial teacher and a pool of the last {schedule.pool_size}",
    }[schedule.retain]
    shared = {"mean": "", "dev_weighted": ", weighted by dev", "sample": ", of whom one is drawn each step"}
    begun = schedule.on_rotation
    again = [
        text
        for text, wanted in (
            ("the student begins again", begun.student == "reinit"),
            ("the optimizer forgets", begun.optimizer == "reset"),
            ("the learning rate restarts", begun.lr == "restart"),
        )
        if wanted
    ]
    return "; ".join([_when(plan, schedule), f"{source} {taught}{shared[schedule.aggregate]}", *again])


def _when(plan: Plan, schedule: Schedule) -> str:
    """After which steps a rotation takes place and, but for the one that fills the slot, on what condition."""
    conditions = {
        "on_improvement": ["dev is the run's best"],
        "plateau": [f"dev has not improved for {schedule.patience} evaluations"],
    }.get(schedule.trigger, [])
    if schedule.gate is not None:
        conditions.append(f"dev is at most {schedule.gate:g} below the teacher's")
    skipped = (
        f" (the one due at the last step, {plan.max_steps}, is skipped: nothing would learn from it)"
        if plan.skipped
        else ""
    )
    decided = plan.rotate - {plan.fills}
    if not conditions or not decided:
        return f"after {_steps(plan.rotate)}{skipped}"
    first = f"after {plan.fills}, then " if plan.fills in plan.rotate else ""
    most = f", at most {schedule.max_rotations} times in all" if schedule.max_rotations else ""
    return f"{first}after {_steps(decided)} where {' and '.join(conditions)}{most}{skipped}"


def _teacher_line(run: Run, teachers: Sequence[Encoder]) -> str:
    if teachers:
        parts = [
            f"{folder}, pooler {teacher.pooler}, {parameter_count(teacher):,} parameters"
            for folder, teacher in zip(run.teachers, teachers, strict=True)
        ]
        return "; ".join(parts)
    if run.config.teacher.source == "self":
        again = ", on a student that begins again from the base encoder" if run.plan.anew else ""
        return f"none for {run.config.teacher.warmup_steps} steps of plain SimCSE, then its own snapshots{again}"
    return "none"


def _embeddings_lines(run: Run, teachers: Sequence[Encoder]) -> list[tuple[str, str]]:
    """What a precomputed teacher takes on disk, beside the run's folder."""
    if not run.config.precomputes:
        return []
    files = embedding_files(run, teachers)
    there = "there already" if all(file.whole for file in files) else "computed before the first step, for all runs"
    size = in_words(sum(file.size for file in set(files)))
    return [("embeddings", f"the teacher's of all sentences, {size} in {files[0].path.parent}, {there}")]


def _objective_lines(objective: ObjectiveConfig, width: int) -> list[tuple[str, str]]:
    """What is added up, where the config lists it, and over which sizes of the embedding it is averaged."""
    lines = []
    if objective.terms is not None:
        lines.append(("terms", "; ".join(["InfoNCE", *map(_term, objective.all_terms)])))
    if objective.dims is not None:
        sizes = ", ".join(map(str, objective.dims))
        whole = "" if width in objective.dims else f", of which the {width} that select are not one"
        lines.append(("sizes", f"losses are means over the first {sizes} of {width} numbers of an embedding{whole}"))
    return lines


def _term(term: Term) -> str:
    called = term.name.removeprefix("term/")
    parts = [called if called == term.what else f"{called}: {term.what}", f"weight {term.weight:g}"]
    if term.ramp is not None:
        since = {"run": "the first on", "first": "the first teacher on", "rotation": "each teacher on"}[term.ramp]
        parts.append(f"reached over {term.ramp_steps} steps from {since}")
    if term.fade_steps is not None:
        parts.append(f"falling to 0 over the last {term.fade_steps} steps")
    for side in ("student", "teacher"):
        if reads(term.what, f"temperature_{side}") and not is_own(term.what):
            final = getattr(term, f"temperature_{side}_final")
            told = f"{side}'s temperature {getattr(term, f'temperature_{side}'):g}"
            parts.append(told if final is None else f"{told} to {final:g}")
    return ", ".join(parts)


def _parts_lines(run: Run) -> list[tuple[str, str]]:
    told = ", ".join(f"{part} (source {sha256[:8]})" for part, sha256 in run.own_parts.items())
    return [("own parts", told)] if told else []


def _steps(steps: Iterable[int]) -> str:
    ordered = sorted(steps)
    if not ordered:
        return "no step"
    if len(ordered) > 12:
        return f"{', '.join(map(str, ordered[:6]))}, ..., {ordered[-1]} ({len(ordered)} times)"
    return ", ".join(map(str, ordered))


def _share(config: Config) -> int:
    return config.data.batch_size // config.processes
