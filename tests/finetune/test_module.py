"""Fine-tuning runs on the tiny BERT, from examples to rows."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import otfkd.cli.compare
import otfkd.training.run
import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.cli.runs import looking
from otfkd.config.schema import Config
from otfkd.data.collate import LabelledBatch, pad
from otfkd.data.datamodule import LabelledData
from otfkd.data.labelled import Examples
from otfkd.data.sts import DevTask, Subset, Suite, TestTask
from otfkd.data.tokens import tokenize
from otfkd.evaluation.encode import encode
from otfkd.finetune.losses import classification, cosent, cosine_regression, supervised_info_nce
from otfkd.finetune.module import FineTuning
from otfkd.models.encoder import Encoder, Head
from otfkd.models.registry import load_encoder
from otfkd.tables.tabulate import build_table
from otfkd.tables.terminal import scores
from otfkd.training.run import Models, prepare
from otfkd.training.train import train
from tests.support.json_lines import metrics
from tests.support.models import make_model
from tests.support.published import make_spec
from tests.support.resuming import final, stop_after, unclocked
from tests.support.texts import sentence

OBJECTIVES = ("supervised_simcse", "cosent", "cosine_regression", "softmax")
STEPS = ("trainer.max_steps=3", "evaluation.every=null")

Tune = Callable[..., Config]


def make_examples(path: Path, header: str, last: Callable[[random.Random], str], size: int = 30) -> Path:
    """Write a CSV of random sentences of the tiny vocabulary."""
    rng = random.Random(3)
    rows = (f"{sentence(rng)},{sentence(rng)},{last(rng)}\n" for _ in range(size))
    path.write_text(header + "\n" + "".join(rows))
    return path


@pytest.fixture
def tune(configure: Callable[..., Config], tmp_path: Path) -> Tune:
    """The small run's config with an objective and fitting examples, and some more."""
    files = {
        "supervised_simcse": make_examples(tmp_path / "triplets.csv", "sent0,sent1,hard_neg", sentence),
        "cosent": make_examples(
            tmp_path / "graded.csv", "sentence1,sentence2,score", lambda rng: str(rng.randint(0, 50) / 10)
        ),
        "softmax": make_examples(
            tmp_path / "classified.csv",
            "sentence1,sentence2,label",
            lambda rng: rng.choice(("entailment", "neutral", "contradiction")),
        ),
    }
    files["cosine_regression"] = files["cosent"]

    def tuned(objective: str, *more: str) -> Config:
        given = (f"objective={objective}", "data=labelled", f"data.path={files[objective]}", "data.batch_size=4")
        return configure(*given, "name=tuned", *more)

    return tuned


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_three_steps_of_each_objective_train_what_is_exported(tune: Tune, tiny_model: Path, objective: str) -> None:
    result = train(tune(objective, *STEPS))
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 3 and all(0 < loss < 50 for loss in losses)
    before, after = (load_encoder(folder, "cls").state_dict() for folder in (tiny_model, result.folder / "model"))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before if "LayerNorm.weight" in name)
    assert (result.folder / "rotations.jsonl").read_text() == ""


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_of_a_batch_is_that_of_its_sentences(tune: Tune, tiny_encoder: Encoder, objective: str) -> None:
    run = prepare(tune(objective))
    data = otfkd.training.train._learning(run, Models(tiny_encoder, [], None), 0)[1]
    module = FineTuning(tiny_encoder, None, run.config, run.plan)
    module.student.eval()
    (batch,) = (batch for number, batch in enumerate(data.train_dataloader()) if number == 5)
    loss = module.training_step(batch, 5)
    assert isinstance(data, LabelledData) and isinstance(run.data, Examples)
    chosen = data.batches.order.batch(5).tolist()
    columns = [
        encode(tiny_encoder, [run.data.sentences[i][column] for i in chosen], batch_size=1, max_length=16)
        for column in range(run.data.columns)
    ]
    labels = torch.tensor([run.data.labels[i] for i in chosen] if run.data.labels else [])
    match objective:
        case "supervised_simcse":
            expected = supervised_info_nce(columns[0], columns[1], columns[2], 0.05)
        case "cosent":
            expected = cosent(columns[0], columns[1], labels, 0.05)
        case "cosine_regression":
            expected = cosine_regression(columns[0], columns[1], labels)
        case _:
            assert module.classifier is not None
            expected = classification(columns[0], columns[1], labels, module.classifier)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert module.step_losses() == {"loss": pytest.approx(loss.item())}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_reach_student_head_and_classifier(tune: Tune, tiny_encoder: Encoder, objective: str) -> None:
    run = prepare(tune(objective))
    module = FineTuning(tiny_encoder, Head(tiny_encoder.width), run.config, run.plan)
    module.on_fit_start()
    columns = 3 if objective == "supervised_simcse" else 2
    ids = tokenize(tiny_encoder.tokenizer, [f"the cat sat {'on ' * i}mat" for i in range(4 * columns)], 16)
    labels = torch.tensor([] if columns == 3 else [2.0, 0.0, 1.0, 2.0])
    module.training_step(LabelledBatch((), pad(ids, tiny_encoder.pad_id), columns, labels), 0).backward()  # type: ignore[no-untyped-call]
    trained = dict(module.named_parameters())
    assert ("classifier.weight" in trained) == (objective == "softmax")
    still = [name for name, value in trained.items() if value.grad is None or not value.grad.any()]
    # A key's bias shifts all logits of a query alike, so attention does not see it.
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize(
    ("objective", "step", "extra"),
    [("softmax", 5, ()), ("supervised_simcse", 4, ("trainer.accumulate=3", "precision=bfloat16"))],
)
def test_a_stopped_fine_tuning_ends_with_the_same_bits(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, step: int, extra: tuple[str, ...]
) -> None:
    straight = train(tune(objective, *extra, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        with pytest.raises(Interrupted, match=f"after step {step}"):
            train(tune(objective, *extra))
    resumed = train(tune(objective, *extra))
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)


def test_the_plan_says_what_is_learnt(tune: Tune) -> None:
    graded, triplets = (
        {line[:11].strip(): line[11:] for line in train(tune(objective, "dry_run=true")).plan.splitlines()}
        for objective in ("cosent", "supervised_simcse")
    )
    assert graded["examples"] == "graded.csv, 30 pairs with a grade from 0 to 5, read 1.60 times"
    assert graded["steps"] == "12 optimizer steps of 1 x 4 examples, objective cosent"
    assert graded["trained on"] == "no test pair"
    assert "negatives" not in graded and "corpus" not in graded
    assert triplets["negatives"].startswith("7 per anchor")


@pytest.mark.parametrize("objective", ["cosent", "cosine_regression"])
def test_the_scale_of_grades_is_not_part_of_what_is_learnt(
    tune: Tune, configure: Callable[..., Config], tmp_path: Path, objective: str
) -> None:
    header, *rows = (tmp_path / "graded.csv").read_text().splitlines()
    unit = tmp_path / "unit.csv"
    parts = [row.rsplit(",", 1) for row in rows]
    unit.write_text("\n".join([header, *(f"{pair},{float(grade) / 5}" for pair, grade in parts)]))
    runs = [tune(objective, *STEPS), tune(objective, *STEPS, f"data.path={unit}", "data.grade_scale=1")]
    losses = [[row["loss"] for row in metrics(train(run).folder)] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    plan = train(tune(objective, f"data.path={unit}", "data.grade_scale=1", "dry_run=true")).plan
    assert "unit.csv, 30 pairs with a grade from 0 to 1, read" in plan


@pytest.mark.parametrize(
    "given",
    [
        ("objective=softmax", "data=labelled", "data.path=x.csv"),
        ("objective=supervised_simcse", "data=labelled", "data.path=x.csv"),
        ("objective=cosent", "data=stsb_train"),
        ("objective=cosent", "data=mini"),
        ("data=mini",),
    ],
)
def test_a_scale_without_grades_of_ones_own_is_refused(
    configure: Callable[..., Config], given: tuple[str, ...]
) -> None:
    told = (
        r"^data\.grade_scale=1 is the top grade of pairs of your own, and this run reads none: leave it null, or take "
        r"data=labelled with objective=cosent or cosine_regression$"
    )
    with pytest.raises(UserError, match=told):
        configure(*given, "data.grade_scale=1")


def test_rows_say_from_what_and_on_what(tune: Tune, tiny_model: Path) -> None:
    config = tune("cosent", *STEPS)
    result, run = train(config), prepare(config)
    for row in result.rows:
        assert row.fine_tuned is not None
        assert row.fine_tuned.model_dump() == {
            "objective": "cosent", "data": "graded.csv", "examples": 30, "data_sha256": run.data.sha256,
            "model": str(tiny_model), "model_sha256": run.fingerprints["model"], "trained_on": {},
        }  # fmt: skip
    assert f"fine-tuned from {tiny_model} on graded.csv" in scores(result.rows)
    assert train(config).rows == result.rows


def test_dev_pairs_are_left_out_and_test_pairs_counted(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (tmp_path / "graded.csv").read_text().splitlines()[1:]
    pairs = [(left, right, float(grade)) for left, right, grade in (line.split(",") for line in lines)]
    dev, test = (Subset("s", tuple(pairs[some])) for some in (slice(0, 5), slice(10, 22)))
    suite = Suite("overlapping", DevTask("dev", (dev,)), (TestTask("held", (test,)),))
    monkeypatch.setattr(otfkd.training.run, "load_suite", lambda *_: suite)
    result = train(tune("cosent", *STEPS))
    assert "25 pairs with a grade from 0 to 5 (5 more are dev's and left out)" in result.plan
    assert "trained on test pairs too: 12 of held" in result.plan
    told = [row.fine_tuned for row in result.rows]
    assert [(row.examples, row.trained_on) for row in told if row is not None] == [(25, {"held": 12})] * 4
    rows = {"simcse": [row for row in result.rows if (row.split, row.checkpoint) == ("test", "selected")]}
    table = build_table(make_spec(), "mini", {None: rows})
    assert "graded.csv holds test pairs: 12 of the 12 of held" in table.markdown()


def test_seeds_that_start_from_their_own_run_share_a_folder_and_compare(
    tune: Tune, configure: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    started, tuned = [], []
    for seed in (0, 1):
        run = train(configure("experiment=simcse", *STEPS, f"seed={seed}", "model.pooler=mean")).folder
        config = tune("cosent", *STEPS, f"seed={seed}", f"model={run}", "model.pooler=null")
        started.append(run)
        tuned.append(train(config).folder)
        assert load_encoder(tuned[-1] / "model").pooler == "mean"  # as saved with the run
    assert tuned[0].parent == tuned[1].parent
    otfkd.cli.compare._compare([started[0].parent, tuned[0].parent], with_pairs=False)
    assert "tiny" in capsys.readouterr().out
    listed = looking(tuned[0].parents[2], ["state=finished"], None)()
    assert {run.run.path for run in listed} == {*started, *tuned}


def test_another_start_is_another_run(tune: Tune, tmp_path: Path) -> None:
    folders: list[Path] = []
    for seed in (4, 5, 5):
        start = make_model(tmp_path / str(len(folders)), seed=seed)
        folders.append(prepare(tune("cosent", f"model={start}", "model.pooler=cls")).folder.path)
    assert folders[0] != folders[1] == folders[2]


def test_a_starting_run_that_was_trained_anew_is_noticed(tune: Tune, configure: Callable[..., Config]) -> None:
    run = train(configure("experiment=simcse", *STEPS)).folder
    config = tune("cosent", *STEPS, f"model={run}")
    train(config)
    weights = run / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="another model than there is now"):
        train(config)


@pytest.mark.parametrize(
    ("objective", "more", "told"),
    [
        ("cosent", ("objective=softmax",), "no column label"),
        ("softmax", ("objective=supervised_simcse",), "no column sent0"),
        ("cosent", ("data=mini", "data.path=null", "objective=softmax"), "has none"),
        ("cosent", ("objective=simcse",), "the objective reads plain sentences"),
        ("cosent", ("teacher=minilm",), "teacher=minilm is not read with"),
        ("cosent", ("teacher=self", "schedule=every", "schedule.every=2"), "has no teacher"),
        ("cosent", ("data.batch_size=31",), "30 examples, fewer than data.batch_size=31"),
    ],
)
def test_what_cannot_be_learnt_is_refused(tune: Tune, objective: str, more: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        prepare(tune(objective, *more))


def test_the_classifier_starts_the_same_whatever_ran_before(tune: Tune, tiny_encoder: Encoder) -> None:
    run = prepare(tune("softmax"))
    weights = []
    for noise in (0, 99):
        torch.manual_seed(noise)
        classifier = FineTuning(tiny_encoder, None, run.config, run.plan).classifier
        assert classifier is not None
        weights.append(classifier.weight.detach().clone())
    assert torch.equal(*weights)
