"""A model card: what an exported model is, what it was taught by, and how far its scores can be trusted."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from omegaconf import OmegaConf

from otfkd.base.errors import UserError
from otfkd.base.provenance import environment
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, fingerprint_model
from otfkd.reporting.citation import BIBTEX
from otfkd.reporting.history import History, read_history
from otfkd.runs.rows import Row

UNKNOWN = "unknown"
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# What a config says of the machine, or says again elsewhere on the card.
_NOT_TOLD = ("name", "seed", "dry_run", "fresh", "resume", "logger", "paths", "evaluation")


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
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "otfkd"]
    if history is not None:
        tags += ["simcse", *(["knowledge-distillation"] if _distils(history) else [])]
    repo = None if history is None or history.get("data", "source") != "hub" else history.get("data", "repo")
    results = _eval_results(history)
    metadata = ModelCardData(
        library_name="sentence-transformers", pipeline_tag="sentence-similarity", license=licence, base_model=base,
        datasets=None if repo is None else [repo], tags=tags, model_name=name if results else None,
        eval_results=results or None,
    )  # fmt: skip
    sections = {
        "": _summary(encoder, max_length, base),
        "Use": _use(name, onnx),
        "Method": _method(history),
        "Teachers": _teachers(history),
        "Data": _data(history),
        "Scores": _scores(history),
        "Versions": _versions(history),
        "Licence": f"`{licence}`" if licence else f"{UNKNOWN.capitalize()}: whoever exported it named none.",
        "Citation": BIBTEX,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else f"# {name}\n\n{text}" for title, text in sections.items())
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"))


def hub_name(path: str, found: str) -> str | None:
    """What the hub calls a model that was asked for as `path` and found in the folder that `found` mentions."""
    if path == "minilm":
        return _MINILM
    return path if f"models--{path.replace('/', '--')}/" in found.replace("\\", "/") else None


def _eval_results(history: History | None) -> list[EvalResult]:
    rows = [] if history is None else [history.row(split, "selected") for split in ("test", "dev")]
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
    ]


def _headlines(row: Row) -> Iterator[tuple[str, float]]:
    """Each task that has a Spearman correlation over all its pairs, with it."""
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


def _use(name: str, onnx: bool) -> str:
    text = f'''```python
from sentence_transformers import SentenceTransformer

embeddings = SentenceTransformer("{name}").encode(["A man plays the guitar.", "Somebody makes music."])
```

or with otfkd: `otfkd.load("{name}").encode(sentences)`.'''
    if onnx:
        text += """

`model.onnx` takes `input_ids` and `attention_mask`, int64 (batch, length) padded on the right, as `tokenizer.json`
makes them of sentences with the prompt, if there is one, before each. It gives `sentence_embedding`, float32
(batch, dimensions)."""
    return text


def _distils(history: History) -> bool:
    return bool(history.get("objective", "kd_weight")) and history.get("teacher", "source") in ("self", "model")


def _method(history: History | None) -> str:
    if history is None:
        return f"{UNKNOWN.capitalize()}: the model does not come from a run of otfkd's."
    if not history.config:
        return f"{UNKNOWN.capitalize()}: the run keeps no config."
    words = [
        "Unsupervised SimCSE (Gao et al. 2021): a sentence's two embeddings under different dropout attract each "
        "other, and those of the batch's other sentences repel."
    ]
    if _distils(history):
        words.append(
            "The student also learns the cosines within the batch that a teacher gives, with weight "
            f"{history.get('objective', 'kd_weight')} (DistillCSE, Xu et al. 2023)."
        )
        words.append(
            "On the fly: cached snapshots of the student itself rotate into the teacher's place (Zhu 2024)."
            if history.get("schedule", "trigger") != "never"
            else "The teacher is the same throughout."
        )
        if history.get("objective", "group_p") is not None:
            words.append(
                f"The teacher's cosines are shuffled within groups of rank, p = {history.get('objective', 'group_p')}."
            )
    told = {key: _without_paths(value) for key, value in history.config.items() if key not in _NOT_TOLD}
    settings = OmegaConf.to_yaml(OmegaConf.create(told)).rstrip()
    facts = history.provenance
    run = (
        f"Experiment `{history.get('name')}`, config {facts['config_hash']}, seed {facts.get('seed', UNKNOWN)}. "
        f"sha256 of the base model's files: `{facts['fingerprints'].get('model', UNKNOWN)}`."
    )
    return (
        "\n".join(words)
        + f"\n\n{run}\n\n<details><summary>All settings</summary>\n\n```yaml\n{settings}\n```\n\n</details>"
    )


def _without_paths(section: Any) -> Any:
    # A path says where something lay on one machine; what it was is told by its hash.
    return {key: value for key, value in section.items() if key != "path"} if isinstance(section, dict) else section


def _teachers(history: History | None) -> str:
    if history is None or not history.config:
        return f"{UNKNOWN.capitalize()}."
    lines = [f"Initial teacher: {_initial_teacher(history)}."]
    if history.rotations:
        lines += [
            "", "| generation | teacher after step | snapshot of step | sha256 | dev | learning rate |",
            "|---|---|---|---|---|---|", *(_generation(rotation) for rotation in history.rotations),
        ]  # fmt: skip
    selected = history.row("test", "selected") or history.row("dev", "selected")
    if selected is not None and _distils(history):
        lines += ["", f"The model is the student after step {selected.step}; its teacher then was generation "
                      f"{selected.generation} (0 is the initial one)."]  # fmt: skip
    return "\n".join(lines)


def _initial_teacher(history: History) -> str:
    source, path = history.get("teacher", "source"), history.get("teacher", "path")
    if source == "none":
        return "none"
    if source == "self":
        return f"none, for {history.get('teacher', 'warmup_steps')} steps of SimCSE alone; then the first snapshot"
    sha256 = history.provenance["fingerprints"].get("teacher")
    called = hub_name(path, history.plan) or _earlier_run(path, sha256) or "a local model"
    return f"{called}, sha256 of its files `{sha256 or UNKNOWN}`"


def _earlier_run(path: str, sha256: str | None) -> str | None:
    """The run that a teacher is the model of, if it is still there and still the same."""
    try:
        model = find_model(path) if Path(path).is_dir() else None
    except UserError:
        return None
    earlier = None if model is None or fingerprint_model(model) != sha256 else read_history(model)
    if earlier is None:
        return None
    return (
        f"the model of a run of `{earlier.get('name') or UNKNOWN}`, config {earlier.provenance['config_hash']}, "
        f"seed {earlier.provenance.get('seed', UNKNOWN)}"
    )


def _generation(rotation: Mapping[str, Any]) -> str:
    dev, sha256 = rotation.get("dev"), rotation.get("sha256", UNKNOWN)
    cells = (
        rotation.get("generation", UNKNOWN), rotation.get("step", UNKNOWN), rotation.get("snapshot_step", UNKNOWN),
        f"`{sha256}`", "not scored" if dev is None else f"{dev:.2f}", rotation.get("lr", UNKNOWN),
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _data(history: History | None) -> str:
    if history is None:
        return f"{UNKNOWN.capitalize()}."
    kind = {
        "mini": "sentences that otfkd generates itself", "text": "a text file, one sentence a line",
        "hub": f"`{history.get('data', 'file')}` of the hub's data set `{history.get('data', 'repo')}`",
    }.get(history.get("data", "source"), UNKNOWN)  # fmt: skip
    steps, accumulate = history.get("trainer", "max_steps"), history.get("trainer", "accumulate")
    size, length = history.get("data", "batch_size"), history.get("data", "max_length")
    sha256 = history.provenance["fingerprints"].get("corpus", UNKNOWN)
    return (
        f"Text: {kind}; sha256 `{sha256}`. Training uses no labels.\n"
        f"Planned: {steps or UNKNOWN} optimizer steps of {accumulate or UNKNOWN} x {size or UNKNOWN} sentences, "
        f"cut at {length or UNKNOWN} tokens."
    )


def _scores(history: History | None) -> str:
    rows = [] if history is None else list(history.rows)
    if not rows or history is None:
        return f"{UNKNOWN.capitalize()}: no scores come with the model."
    first = rows[0]
    lines = ["| split | task | selected | last step |", "|---|---|---|---|"]
    for split in ("dev", "test"):
        columns = [_column(history.row(split, checkpoint)) for checkpoint in ("selected", "last")]
        tasks = dict.fromkeys(task for column in columns for task in column)
        lines += [f"| {split} | {task} | {' | '.join(column.get(task, '—') for column in columns)} |" for task in tasks]
    steps = [f"{row.checkpoint} after step {row.step}" for row in rows if row.split == "dev"]
    lines += [
        "", f"{first.protocol}; one correlation over all pairs of a task. Dev chose the selected model "
        f"({', '.join(steps)}); test chose nothing. Suite `{first.suite}`, sha256 `{first.suite_sha256}`; "
        f"weights `{first.weights_sha256}`.",
    ]  # fmt: skip
    if first.suite == "mini":
        lines += ["", "The mini suite is generated: its scores show that a run works, not what a model is worth."]
    return "\n".join(lines)


def _column(row: Row | None) -> dict[str, str]:
    if row is None:
        return {}
    column = {task: f"{score:.2f}" for task, score in _headlines(row)}
    return column if len(column) < 2 else {**column, "average": f"{row.average:.2f}"}


def _versions(history: History | None) -> str:
    trained = UNKNOWN if history is None else _environment(history.provenance["environment"])
    return f"Trained with: {trained}.\n\nExported with: {_environment(environment())}."


def _environment(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    return f"{versions}; otfkd's revision {facts['git_revision']}; {facts['device']}, {facts['threads']} threads"
