"""Runs with parts of a user's own: what changes nothing, what is another run, and what is refused."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otfkd.evaluation.scoring
from otfkd.base.errors import UserError
from otfkd.config.composition import load_config, load_evaluate_config
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.evaluation.api import load
from otfkd.evaluation.scoring import score_model
from otfkd.reporting.export import export
from otfkd.training.run import identify, prepare
from otfkd.training.train import train
from tests.support.commands import Command
from tests.support.json_lines import metrics
from tests.support.processes import TWO, in_processes
from tests.support.resuming import final
from tests.support.same_run import assert_same_run

SOURCE = '''
import lightning as L
import torch
from pathlib import Path


def soft(student, teacher):
    return (student - teacher).square().mean()


class Watch(L.Callback):
    """Draws random numbers in every hook of training."""

    def __init__(self):
        self.seen = []

    def setup(self, trainer, module, stage):
        self.draw(stage)

    def draw(self, *_):
        self.seen.append(float(torch.rand(3).sum()))

    def state_dict(self):
        return {"seen": len(self.seen)}


def hook(name):
    return lambda self, trainer, module, *given: self.draw(name)


for name in ("fit_start", "train_start", "train_batch_start", "before_zero_grad", "after_backward", "before_backward",
             "before_optimizer_step", "train_batch_end", "train_epoch_end", "train_end"):
    setattr(Watch, f"on_{name}", hook(name))


class Text:
    def __init__(self):
        self.lines = Path("corpus.txt").read_text().splitlines()

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, number):
        return self.lines[number]


class Score:
    def score(self, encoder):
        torch.rand(3)
        vectors = encoder.encode(["the cat sat", "a dog ran"], normalize=True)
        return {"near": float(vectors[0] @ vectors[1]), "width": vectors.shape[1]}
'''
SHORT = ("trainer.max_steps=6", "evaluation.every=2")
Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Put the module `parts_of_mine` into the current folder, with some source behind the above."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(corpus_file, "corpus.txt")

    def written(more: str) -> None:
        Path("parts_of_mine.py").write_text(SOURCE + more)

    written("")
    yield written
    sys.modules.pop("parts_of_mine", None)


Configure = Callable[..., Config]


@pytest.fixture
def run(write: Write, configure: Configure, command: Callable[..., tuple[str, ...]], tmp_path: Path) -> Configure:
    """A short on-the-fly run, `@` standing for the module."""
    return lambda *more: configure(
        *command("schedule.every=2", *SHORT), *(text.replace("@", "parts_of_mine") for text in more)
    )


WATCHED = ("trainer.callbacks=[@:Watch]", "evaluation.extra=[@:Score]")


@pytest.mark.parametrize("more", [(), ("trainer.accumulate=3", "trainer.chunk=3", "objective=distill_group_p")])
def test_who_watches_and_draws_random_numbers_changes_no_bit(run: Configure, more: tuple[str, ...]) -> None:
    plain, watched = train(run(*more)), train(run(*more, *WATCHED))
    assert watched.folder != plain.folder
    one, other = final(plain.folder), final(watched.folder)
    for key in ("weights", "optimizer", "best", "rotations", "model", "snapshots"):
        assert one[key] == other[key], key
    (kept,) = (state for name, state in other["callbacks"].items() if name == "Watch")
    assert kept["seen"] >= 3 + 6 * 6
    assert [row.scores for row in plain.rows] == [row.scores for row in watched.rows]
    assert all(row.extra is not None and row.extra["width"] == 32 for row in watched.rows)
    assert all(row.extra is None and row.parts is None for row in plain.rows)


def test_text_of_ones_own_is_the_corpus_that_the_file_is(run: Configure) -> None:
    custom = ("data=custom", "data.path=@:Text")
    config = run(*custom)
    plain, mapped = prepare(run()), prepare(config)
    assert mapped.fingerprints["corpus"] == plain.fingerprints["corpus"] and mapped.size == plain.size
    assert final(train(config).folder)["weights"] == final(train(run()).folder)["weights"]
    # What the source reads changed, and the source did not.
    Path("corpus.txt").write_text(Path("corpus.txt").read_text().replace("\n", "!\n"))
    assert prepare(config).fingerprints["corpus"] != plain.fingerprints["corpus"]


def test_a_changed_source_is_another_run_and_the_old_one_comes_back(run: Configure, write: Write) -> None:
    config = run("objective.kd=@:soft")
    first = train(config)
    assert train(config).status == "skipped"
    assert identify(config, {}).hash == prepare(config).hash == first.folder.parent.name
    write("# edited\n")
    second = prepare(config)
    assert second.folder.path != first.folder
    assert identify(config, {}).hash == second.hash
    write("")
    assert train(config).folder == first.folder
    provenance = json.loads((first.folder / "provenance.json").read_text())
    assert list(first.rows[0].parts or {}) == ["objective.kd=parts_of_mine:soft"]
    assert provenance["fingerprints"]["objective.kd"] == (first.rows[0].parts or {})["objective.kd=parts_of_mine:soft"]


def test_a_loss_of_ones_own_may_be_one_of_several_terms(run: Configure, write: Write) -> None:
    terms = "objective.terms=[{what: ce, weight: 0.5}, {what: '@:soft', ramp: first, ramp_steps: 2}]"
    result = train(run(terms))
    assert list(result.rows[0].parts or {}) == ["objective.terms=parts_of_mine:soft"]
    rows = [row for row in metrics(result.folder) if "term/soft" in row]
    assert len(rows) == 4 and all(row["term/soft"] > 0 for row in rows)
    for row in rows:
        parts = 0.5 * row["term/ce"] + row["term/soft/weight"] * row["term/soft"]
        assert row["loss"] == pytest.approx(row["info_nce"] + parts, rel=1e-5)
    alone = run("objective.terms=[{what: '@:soft'}]"), run("objective.kd=@:soft")
    one, other = (final(train(config).folder)["weights"] for config in alone)
    assert one == other
    write("# edited\n")
    assert prepare(run(terms)).folder.path != result.folder
    with pytest.raises(UserError, match=r"objective\.terms=parts_of_mine:hook fails on two tensors \(6, 5\)"):
        prepare(run("objective.terms=[{what: '@:hook'}]"))


def test_a_source_that_changes_after_the_plan_is_refused(
    run: Configure, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = otfkd.training.train.make_parts  # type: ignore[attr-defined]

    def edited(*given: Any) -> Any:
        write("# edited\n")
        return made(*given)

    monkeypatch.setattr(otfkd.training.train, "make_parts", edited)
    with pytest.raises(UserError, match=r"objective\.kd=parts_of_mine:soft was changed since the run was planned"):
        train(run("objective.kd=@:soft"))


def test_two_processes_find_the_parts_and_make_the_run_of_one(run: Configure, still: Path, tmp_path: Path) -> None:
    parts = (f"model={still}", "model.dropout=0", "objective.kd=@:soft", "data=custom", "data.path=@:Text", *WATCHED)
    one = train(run(*parts, f"paths.runs={tmp_path / 'one'}")).folder
    in_processes(2, tmp_path / "two", lambda: train(run(*parts, TWO, f"paths.runs={tmp_path / 'two'}")).folder)
    (two,) = (tmp_path / "two").glob("*/*/s0")
    assert two.parent.name == one.parent.name
    assert_same_run(one, two)
    assert (two / "results.jsonl").is_file()


@pytest.mark.slow
def test_processes_that_a_command_starts_find_the_parts(
    write: Write, overrides: list[str], otfkd_command: Command
) -> None:
    """A spawned process imports everything anew; the suite is the embedded one there."""
    few = ["trainer.max_steps=2", "evaluation.every=null", "experiment=otfkd", "teacher.warmup_steps=1"]
    parts = ["objective.kd=parts_of_mine:soft", *(text.replace("@", "parts_of_mine") for text in WATCHED)]
    outcome = otfkd_command("train", *overrides, *few, *parts, TWO)
    assert outcome.code == 0, outcome.err


BAD = """
class NoCallback:
    pass

class Needs(L.Callback):
    def __init__(self, needed):
        pass

class Saves(L.pytorch.callbacks.ModelCheckpoint):
    pass

class Touches(L.Callback):
    def on_train_batch_end(self, trainer, module, *_):
        with torch.no_grad():
            next(module.student.parameters()).mul_(1.0)

class Grads(L.Callback):
    def on_after_backward(self, trainer, module):
        next(weight.grad for weight in module.parameters() if weight.grad is not None).zero_()

class Modes(L.Callback):
    def on_train_batch_start(self, trainer, module, *_):
        module.student.eval()

class Rates(L.Callback):
    def on_train_batch_end(self, trainer, module, *_):
        trainer.optimizers[0].param_groups[0]["weight_decay"] = 0.5

class State(L.Callback):
    def on_train_batch_end(self, trainer, module, *_):
        next(iter(trainer.optimizers[0].state.values()))["exp_avg"].zero_()

class Stops(L.Callback):
    def on_train_batch_end(self, trainer, module, *_):
        trainer.should_stop = True

class Fails(L.Callback):
    def on_train_batch_end(self, trainer, module, *_):
        raise KeyError("bang")

class Unkept(L.Callback):
    def state_dict(self):
        return {"path": Path()}

class NoScore:
    pass

class Words:
    def score(self, encoder):
        return {"near": "very"}

class Nan:
    def score(self, encoder):
        return {"near": float("nan")}

class Trains:
    def score(self, encoder):
        encoder.encoder.backbone.get_input_embeddings().weight.mul_(1.0)
        return {}

class Again(Score):
    pass

class Raises:
    def score(self, encoder):
        return encoder.encode(3)

class NoMap:
    def __len__(self):
        return 9

class Numbers(Text):
    def __getitem__(self, number):
        return "one" if number < 2 else number

class Ends(Text):
    def __len__(self):
        return 1000
"""


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.callbacks=[@:NoCallback]", "is no callback: give a class derived from lightning.Callback that is"),
        ("trainer.callbacks=[@:soft]", "is no callback"),
        ("trainer.callbacks=[@:Saves]", "does what a run does itself"),
        ("evaluation.extra=[@:NoScore]", "is no evaluator: give a class that is made without arguments and has score("),
        ("evaluation.extra=[@:soft]", "is no evaluator"),
        ("data.path=@:NoMap", "is no map: give a class that is made without arguments and has __len__, and"),
        ("data.path=@:Numbers", "data.path=parts_of_mine:Numbers: line 3 holds 2, not text"),
        ("data.path=@:Ends", r"data.path=parts_of_mine:Ends failed (IndexError: list index out of range"),
        ("data.path=@:soft", "is no map"),
        ("objective.kd=@:Text", "is no function|fails on|gives"),
        ("objective.kd=@:hook", "fails on two tensors (6, 5)"),
    ],
)
def test_what_is_no_part_is_refused_in_the_plan(run: Configure, write: Write, override: str, words: str) -> None:
    write(BAD)
    custom = ["data=custom"] if override.startswith("data.path") else []
    with pytest.raises(UserError) as refused:
        train(run(*custom, override, "dry_run=true"))
    told = str(refused.value)
    assert any(word in told for word in words.split("|")) and "\n" not in told


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.callbacks=[@:Needs]", "failed (TypeError: "),
        ("trainer.callbacks=[@:Touches]", "changed the weights in on_train_batch_end: let it only look"),
        ("trainer.callbacks=[@:Grads]", "changed gradients in on_after_backward"),
        ("trainer.callbacks=[@:Modes]", "changed the mode of a module (train or eval) in on_train_batch_start"),
        ("trainer.callbacks=[@:Rates]", "changed the optimizer's settings"),
        ("trainer.callbacks=[@:State]", "changed the optimizer's state"),
        ("trainer.callbacks=[@:Stops]", "changed the trainer's loop"),
        ("trainer.callbacks=[@:Fails]", "failed (KeyError: 'bang', "),
        ("trainer.callbacks=[@:Unkept]", "has a state_dict that no checkpoint can hold"),
        ("evaluation.extra=[@:Words]", "gave {'near': 'very'}: give a class"),
        ("evaluation.extra=[@:Nan]", "gave {'near': nan}: give a class"),
        ("evaluation.extra=[@:Trains]", "changed the weights of the model that it scores"),
        ("evaluation.extra=[@:Score,@:Again]", "gives near, as an evaluator before it does: rename one"),
        ("evaluation.extra=[@:Raises]", "sentences is 3, not a string"),
    ],
)
def test_what_breaks_a_rule_stops_the_run_with_its_name(
    run: Configure, write: Write, override: str, words: str
) -> None:
    write(BAD)
    with pytest.raises(UserError) as refused:
        train(run(override, "trainer.max_steps=2", "evaluation.every=null", "teacher.warmup_steps=1"))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_any_model_is_scored_by_an_evaluator_of_ones_own(
    write: Write, tiny_model: Path, tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    given = [f"model={tiny_model}", "model.pooler=cls", "evaluation.extra=[parts_of_mine:Score]"]
    dev, test = score_model(load_evaluate_config(given))
    vectors = load(str(tiny_model), pooler="cls").encode(["the cat sat", "a dog ran"], normalize=True)
    assert dev.extra == test.extra == {"near": float(vectors[0] @ vectors[1]), "width": 32}
    assert list(dev.parts or {}) == ["evaluation.extra=parts_of_mine:Score"]
    with pytest.raises(UserError, match=r"evaluation\.extra=.* is not read with evaluation=transfer"):
        load_evaluate_config([*given, "evaluation=transfer", "paths.data_root=/data"])


TRAP = "trap_of_a_model:f"


def test_a_model_that_names_an_import_path_imports_nothing(
    run: Configure, write: Write, tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever its folder says: as a model, a teacher, a run that is exported, or one to be scored."""
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    Path("trap_of_a_model.py").write_text("open('sprung', 'w').close()\ndef f(*_): ...\n")
    finished = train(run("objective.kd=@:soft", *WATCHED)).folder
    for name in ("config.yaml", "results.jsonl"):
        text = (finished / name).read_text()
        for part in ("parts_of_mine:soft", "parts_of_mine:Watch", "parts_of_mine:Score"):
            assert part in text
            text = text.replace(part, TRAP)
        (finished / name).write_text(text)
    for name in ("config.json", "config_sentence_transformers.json", "modules.json"):
        path = finished / "model" / name
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            content |= {"kd": TRAP, "callbacks": [TRAP], "extra": [TRAP], "objective": {"kd": TRAP}}
        path.write_text(json.dumps(content))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load(str(finished)).encode("the cat").shape == (32,)
    score_model(load_evaluate_config([f"model={finished}"]))
    export(str(finished), tmp_path / "exported")
    assert TRAP in (tmp_path / "exported/README.md").read_text()
    for more in ((f"model={finished}",), (f"teacher={finished}",)):
        train(run(*more, "trainer.max_steps=3", "evaluation.every=null"))
    assert not Path("sprung").exists() and "trap_of_a_model" not in sys.modules
    with pytest.raises(UserError, match="trap_of_a_model:f"):  # the trap works
        prepare(run(f"objective.kd={TRAP}"))
    assert Path("sprung").exists()
    sys.modules.pop("trap_of_a_model", None)


def test_a_config_file_of_ones_own_may_name_parts(tmp_path: Path) -> None:
    (tmp_path / "configs/objective").mkdir(parents=True)
    (tmp_path / "configs/objective/soft.yaml").write_text("defaults: [distill]\nkd: parts_of_mine:soft\n")
    given = [f"hydra.searchpath=['file://{tmp_path / 'configs'}']", "experiment=otfkd", "objective=soft"]
    assert load_config(given).parts == {"objective.kd": ["parts_of_mine:soft"]}
