"""A model card: what an exported model is, what it was taught by, and how far its scores can be trusted."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from omegaconf import OmegaConf

from otfkd.base.provenance import environment
from otfkd.config.stored import StoredConfig
from otfkd.models.encoder import Encoder
from otfkd.reporting.card.citation import BIBTEX
from otfkd.reporting.card.data import data, hub_data
from otfkd.reporting.card.history import UNKNOWN, History
from otfkd.reporting.card.method import method
from otfkd.reporting.card.teachers import teachers
from otfkd.runs.rows import Row

_SPLITS: tuple[Literal["dev", "test"], ...] = ("dev", "test")
_TOLD_ELSEWHERE = {"name", "seed", "evaluation"}


def model_card(
    name: str, encoder: Encoder, max_length: int, history: History | None, *, base: str | None, licence: str | None,
    onnx: bool,
) -> str:  # fmt: skip
    """The text of a README.md: metadata that the hub reads, then everything in words.

    Args:
        name: what the model is called.
        encoder: the model.
        max_length: tokens it reads of a sentence.
        history: the run it comes from, None where that is not known.
        base: the hub's name of the model that it is or started from, where it has one.
        licence: its identifier on the hub.
        onnx: whether a graph lies beside it.
    """
    repo = None if history is None else hub_data(history.config.data)
    results = _eval_results(history)
    metadata = ModelCardData(
        library_name="sentence-transformers", pipeline_tag="sentence-similarity", license=licence, base_model=base,
        datasets=None if repo is None else [repo], tags=_tags(history), model_name=name if results else None,
        eval_results=results or None,
    )  # fmt: skip
    sections = {
        "": _summary(encoder, max_length, base),
        "Use": _use(name, onnx, encoder.dims),
        "Method": _method(history),
        "Teachers": f"{UNKNOWN.capitalize()}." if history is None else teachers(history),
        "Data": f"{UNKNOWN.capitalize()}." if history is None else data(history),
        "Scores": _scores(history),
        "Versions": _versions(history),
        "Licence": f"`{licence}`" if licence else f"{UNKNOWN.capitalize()}: whoever exported it named none.",
        "Citation": BIBTEX,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else f"# {name}\n\n{text}" for title, text in sections.items())
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"))


def _tags(history: History | None) -> list[str]:
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "otfkd"]
    objective = None if history is None else history.config.objective
    if objective is not None and objective.supervised in (None, "simcse") and objective.fn is None:
        tags.append("simcse")
    if history is not None and history.taught:
        tags.append("knowledge-distillation")
    return tags


def _eval_results(history: History | None) -> list[EvalResult]:
    rows = [] if history is None else [history.row("test", "selected"), history.row("dev", "selected")]
    return [
        EvalResult(
            task_type="semantic-similarity",
            task_name="Semantic Textual Similarity",
            dataset_type=task.lower().replace(" ", "-"),
            dataset_name=task,
            dataset_split=row.split,
            metric_type="cos_sim_spearman",
            metric_name=row.protocol,
            metric_value=round(score, 2),
        )
        for row in rows
        if row is not None
        for task, score in _headlines(row)
        if score is not None
    ]


def _headlines(row: Row) -> Iterator[tuple[str, float | None]]:
    """Each task that has a Spearman correlation over all its pairs, with it; None where it is undefined."""
    return ((task, scores["all"]) for task, scores in row.scores.items() if "all" in scores)


def _summary(encoder: Encoder, max_length: int, base: str | None) -> str:
    lines = [
        f"A sentence encoder: {encoder.width} dimensions, pooler `{encoder.pooler}`, the first {max_length} tokens of "
        f"a sentence, {sum(weight.numel() for weight in encoder.parameters()):,} parameters.",
        f"Embeddings {'have' if encoder.normalize else 'are not scaled to'} unit length; compare them by cosine.",
        f"Base model: {f'[{base}](https://huggingface.co/{base})' if base else UNKNOWN}.",
    ]
    if encoder.prompt:
        counted = "counts" if encoder.pool_prompt else "does not count"
        lines.append(f"The prompt `{encoder.prompt}` is put before every sentence and {counted} in pooling.")
    return "\n".join(lines)


def _use(name: str, onnx: bool, dims: Sequence[int] = ()) -> str:
    text = f'''```python
from sentence_transformers import SentenceTransformer

embeddings = SentenceTransformer("{name}").encode(["A man plays the guitar.", "Somebody makes music."])
```

or with otfkd: `otfkd.load("{name}").encode(sentences)`.'''
    if dims:
        text += f"""

Embeddings may be cut to their first {" or ".join(map(str, dims))} numbers:
`SentenceTransformer("{name}", truncate_dim={dims[-1]})`."""
    if onnx:
        text += """

`model.onnx` takes `input_ids` and `attention_mask`, int64 (batch, length) padded on the right, as `tokenizer.json`
makes them of sentences with the prompt, if there is one, before each. It gives `sentence_embedding`, float32
(batch, dimensions)."""
    return text


def _method(history: History | None) -> str:
    if history is None:
        return f"{UNKNOWN.capitalize()}: the model does not come from a run of otfkd's."
    facts = history.provenance
    run = (
        f"Experiment `{history.config.name or UNKNOWN}`, config {facts.config_hash}, "
        f"seed {UNKNOWN if facts.seed is None else facts.seed}. "
        f"sha256 of the base model's files: `{history.base[1] or UNKNOWN}`."
    )
    return "\n\n".join([method(history), run, *_parts(history), _settings(history.config)])


def _parts(history: History) -> list[str]:
    """The author's own code in the run, which is not exported."""
    told = ", ".join(f"`{part}` (sha256 of its source: `{sha256}`)" for part, sha256 in history.parts.items())
    return [f"Code of the author's own took part in the run and does not come with the model: {told}."] if told else []


def _settings(config: StoredConfig) -> str:
    sections = config.model_dump(mode="json", exclude=_TOLD_ELSEWHERE)
    # A path says where something lay on one machine; what it was is told by its hash.
    told = {
        name: UNKNOWN if values is None else {key: value for key, value in values.items() if key != "path"}
        for name, values in sections.items()
    }
    text = OmegaConf.to_yaml(OmegaConf.create(told)).rstrip()
    return f"<details><summary>All settings</summary>\n\n```yaml\n{text}\n```\n\n</details>"


def _scores(history: History | None) -> str:
    if history is None or not history.rows:
        return f"{UNKNOWN.capitalize()}: no scores come with the model."
    first = history.rows[0]
    lines = ["| split | task | selected | last step |", "|---|---|---|---|"]
    for split in _SPLITS:
        columns = [_column(history.row(split, "selected")), _column(history.row(split, "last"))]
        tasks = dict.fromkeys(task for column in columns for task in column)
        lines += [f"| {split} | {task} | {' | '.join(column.get(task, '—') for column in columns)} |" for task in tasks]
    steps = [f"{row.checkpoint} after step {row.step}" for row in history.rows if row.split == "dev"]
    lines += [
        "", f"{first.protocol}; one correlation over all pairs of a task. {_chooser(history)} chose the selected model "
        f"({', '.join(steps)}); test chose nothing. Suite `{first.suite}`, sha256 `{first.suite_sha256}`; "
        f"weights `{first.weights_sha256}`.",
    ]  # fmt: skip
    if (chosen := history.row("dev", "selected")) is not None and chosen.extra:
        told = ", ".join(f"{name} {value:g}" for name, value in chosen.extra.items())
        lines += ["", f"By evaluators of the author's own, of the selected model: {told}."]
    lines += _at_sizes(history)
    if first.suite == "mini":
        lines += ["", "The mini suite is generated: its scores show that a run works, not what a model is worth."]
    return "\n".join(lines)


def _chooser(history: History) -> str:
    """What chose the selected model."""
    evaluation = history.config.evaluation
    return "Dev" if evaluation is None or evaluation.select is None else f"The author's own {evaluation.select}"


def _at_sizes(history: History) -> list[str]:
    """The selected model's averages where its embeddings are cut."""
    rows = [row for split in _SPLITS if (row := history.row(split, "selected")) is not None and row.sizes]
    if not rows:
        return []
    lines = ["", "By the first how many numbers of an embedding, the selected model's averages:", ""]
    lines += [f"| numbers | {' | '.join(row.split for row in rows)} |", f"|---{'|---' * len(rows)}|"]
    for size in rows[0].sizes or ():
        averages = (_told((row.sizes or {})[size]["average"]) for row in rows)
        lines.append(f"| {size} | {' | '.join(averages)} |")
    return lines


def _column(row: Row | None) -> dict[str, str]:
    if row is None:
        return {}
    column = {task: _told(score) for task, score in _headlines(row)}
    return column if len(column) < 2 else {**column, "average": _told(row.average)}


def _told(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.2f}"


def _versions(history: History | None) -> str:
    trained = UNKNOWN if history is None else _environment(history.provenance.environment)
    return f"Trained with: {trained}.\n\nExported with: {_environment(environment())}."


def _environment(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in facts.get("versions", {}).items())
    known = {key: facts.get(key, UNKNOWN) for key in ("git_revision", "device", "threads")}
    return (
        f"{versions or f'versions {UNKNOWN}'}; otfkd's revision {known['git_revision']}; {known['device']}, "
        f"{known['threads']} threads"
    )
