"""Two processes against one; most are forked and find themselves started as by torchrun, which costs no imports."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.base.hashing import derived_seed
from otfkd.base.processes import all_gather, any_process, broadcast, own_rows, rank, rank_zero_first
from otfkd.config.schema import Config
from otfkd.distill.mlm import load_masked_language, mask_tokens
from otfkd.models.registry import load_encoder
from otfkd.training.launch import cluster, join
from otfkd.training.run import prepare
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.commands import Command, assert_refused
from tests.support.json_lines import json_lines
from tests.support.masked_models import make_masked_model, seeded, words
from tests.support.models import make_model
from tests.support.processes import TWO, in_processes
from tests.support.resuming import final
from tests.support.same_run import assert_same_run
from tests.support.steps import make_step, step


@pytest.fixture
def together(tmp_path: Path, configure: Callable[..., Config]) -> Callable[..., list[Any]]:
    """Do something in two processes, or more, of one group."""

    def run(action: Callable[[], Any], number: int = 2) -> list[Any]:
        config = configure(f"trainer.devices={number}", f"data.batch_size={2 * number}")

        def joined() -> Any:
            join(config)
            try:
                return action()
            finally:
                torch.distributed.barrier()  # the first keeps the addresses of all: it must not be gone too soon

        return in_processes(number, tmp_path / "answers", joined)

    return run


def test_alone_everything_is_what_it_was() -> None:
    tensor = torch.ones(2, 3, dtype=torch.bfloat16)
    assert all_gather(tensor) is tensor
    assert own_rows(6) == slice(0, 6)
    assert broadcast(lambda: 5) == rank_zero_first(lambda: 5) == 5
    assert (any_process(True), any_process(False)) == (True, False)


def test_the_shares_are_the_batch(together: Callable[..., list[Any]]) -> None:
    parts = together(lambda: list(range(6))[own_rows(6)], 3)
    assert parts == [[0, 1], [2, 3], [4, 5]]


def test_rows_are_gathered_in_order_with_the_gradient_of_the_mean_over_processes(
    together: Callable[..., list[Any]],
) -> None:
    everything = torch.arange(12, dtype=torch.float32).view(6, 2).requires_grad_()
    everything.pow(3).sum().backward()  # type: ignore[no-untyped-call]

    def part() -> tuple[Any, Any]:
        mine = everything.detach()[own_rows(6)].clone().requires_grad_()
        got = all_gather(mine)
        got.pow(3).sum().backward()  # type: ignore[no-untyped-call]
        assert mine.grad is not None
        return got.tolist(), mine.grad.tolist()

    answers = together(part, 3)
    assert [got for got, _ in answers] == [everything.tolist()] * 3
    assert everything.grad is not None
    # DDP divides the sum over processes by their number.
    assert [row for _, gradient in answers for row in gradient] == (3 * everything.grad).tolist()


def test_the_first_acts_alone_and_all_get_what_it_got(together: Callable[..., list[Any]], tmp_path: Path) -> None:
    made = tmp_path / "made"

    def act() -> tuple[int, int]:
        return broadcast(lambda: os.getpid()), rank_zero_first(
            lambda: made.write_text("") if rank() == 0 else made.stat()
        ) and 0

    (first, _), (second, _) = together(act)
    assert first == second


def refuse() -> None:
    raise UserError("no")


def test_a_users_error_of_the_first_is_everybodys(together: Callable[..., list[Any]]) -> None:
    answers = together(lambda: broadcast(refuse))
    assert [(type(answer), str(answer)) for answer in answers] == [(UserError, "no")] * 2


def test_a_flag_anywhere_is_a_flag_everywhere(together: Callable[..., list[Any]]) -> None:
    assert together(lambda: (any_process(rank() == 1), any_process(False))) == [(True, False)] * 2


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(("objective=simcse",), marks=pytest.mark.slow),
        (
            "objective=distill",
            "objective.mask_repeats=true",
            "objective.consistency_weight=1.0",
            "data.path={repeating}",
        ),
        pytest.param(("objective=distill_group_p",), marks=pytest.mark.slow),
        ("objective=distill", "objective.kd=mse"),
        ("objective=distill_group_p", "trainer.chunk=3"),
    ],
)
def test_two_processes_have_the_loss_and_gradients_of_one(
    configure: Callable[..., Config], still: Path, tmp_path: Path, objective: tuple[str, ...]
) -> None:
    teacher = make_model(tmp_path / "teacher", width=48, seed=5)
    repeating = tmp_path / "repeating.txt"  # of other lengths in each half of the first batch
    repeating.write_text("the cat\nthe old cat sat on the red mat\na bird\n" * 20)
    run = (
        f"model={still}", f"teacher={teacher}", "teacher.pooler=mean", "data.batch_size=8",
        *(text.format(repeating=repeating) for text in objective),
    )  # fmt: skip
    if "objective.kd=mse" not in objective:
        # Cosines come to 1e-7; at the paper's 0.02 and 0.01 that is 1e-5 of a logit.
        run = (*run, "objective.temperature_student=0.1", "objective.temperature_teacher=0.1")
    module, batch = make_step(configure(*run))
    alone = step(module, module, batch)
    assert len(alone) > 30
    token_ids = batch.student.input_ids
    largest = max(torch.tensor(value).abs().max().item() for value in alone.values())

    config = configure(*run, TWO)

    def part() -> dict[str, Any]:
        join(config)
        module, batch = make_step(config)
        width = batch.student.input_ids.shape[1]
        torch.testing.assert_close(batch.student.input_ids, token_ids[own_rows(8), :width])
        return step(DistributedDataParallel(module, find_unused_parameters=True), module, batch)

    for answer in in_processes(2, tmp_path / "answers", part):
        assert answer.keys() == alone.keys()
        for name, value in alone.items():
            expected, found = torch.tensor(value), torch.tensor(answer[name])
            assert (found - expected).abs().max() <= 1e-6 * max(1.0, largest), name


def test_the_auxiliary_loss_is_the_mean_over_the_masked_tokens_of_all_processes(
    together: Callable[..., list[Any]], tmp_path: Path
) -> None:
    mlm = load_masked_language(masked := make_masked_model(tmp_path / "masked"), load_encoder(masked, "cls"), 0.5)
    shares = [words(2, 4, seed=1), words(2, 16, seed=2)]  # of few words and of many
    read = [mask_tokens(tokens.input_ids, mlm.tokenizer, 0.5, seeded(place)) for place, tokens in enumerate(shares)]
    (whole,) = mlm._model
    losses = [
        cross_entropy(
            whole(input_ids=ids, attention_mask=tokens.attention_mask).logits.transpose(1, 2), labels, reduction="sum"
        )
        for tokens, (ids, labels) in zip(shares, read, strict=True)
    ]
    expected = torch.stack(losses).sum() / sum(int((labels != -100).sum()) for _, labels in read)
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = {name: weight.grad for name, weight in mlm.named_parameters()}
    mlm.zero_grad()

    def part() -> tuple[float, dict[str, list[Any]]]:
        loss = mlm(shares[rank()], seeded(rank()))
        loss.backward()
        return loss.item(), {name: p.grad.tolist() for name, p in mlm.named_parameters() if p.grad is not None}

    answers = together(part)
    assert [loss for loss, _ in answers] == pytest.approx([expected.item()] * 2)
    for name, gradient in gradients.items():
        mean = sum(torch.tensor(answer[name]) for _, answer in answers) / 2  # as DDP takes it
        torch.testing.assert_close(mean, gradient)


def test_each_process_has_dropout_of_its_own_and_the_first_that_of_a_run_alone(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure(TWO)

    def seed() -> int:
        join(config)
        module, batch = make_step(config)
        step(module, module, batch)
        return torch.initial_seed()

    assert in_processes(2, tmp_path / "answers", seed) == [
        derived_seed(0, "dropout", 0), derived_seed(0, "dropout", 0, 1),
    ]  # fmt: skip


ROTATING = ("experiment=otfkd", "schedule.every=4", "trainer.max_steps=10", "optimizer.lr=1e-4")


@pytest.mark.parametrize(
    "extra",
    [
        ("objective=distill_group_p",),
        pytest.param(("trainer.accumulate=3",), marks=pytest.mark.slow),
        pytest.param(("schedule.source=best", "schedule.cache_every=2", "schedule.gate=5"), marks=pytest.mark.slow),
        pytest.param(("schedule.source=ema", "schedule.retain=pool", "schedule.pool_size=2"), marks=pytest.mark.slow),
        pytest.param(("schedule.on_rotation.student=reinit",), marks=pytest.mark.slow),
    ],
)
def test_a_run_of_two_processes_is_the_run_of_one(
    configure: Callable[..., Config], still: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    run = (f"model={still}", "model.dropout=0", *ROTATING, *extra)
    alone = train(configure(*run))
    results = in_processes(
        2, tmp_path / "answers", lambda: train(configure(*run, TWO, f"paths.runs={tmp_path / 'two'}"))
    )
    first, second = results
    assert first.rows == second.rows
    assert first.folder.relative_to(tmp_path / "two") == alone.folder.relative_to(tmp_path / "runs")
    assert_same_run(alone.folder, first.folder)
    assert {path.name for path in first.folder.iterdir()} == {path.name for path in alone.folder.iterdir()} | {
        "run.1.log"
    }
    assert [row.scores for row in first.rows] == [row.scores for row in alone.rows]


@pytest.mark.slow
def test_the_first_processs_dev_scores_decide_for_all(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    monkeypatch.setattr(
        otfkd.training.train, "dev_score", lambda *_: (-1.0) ** rank() * next(calls)
    )  # worse and worse elsewhere
    config = configure("experiment=otfkd", "schedule=on_improvement", "teacher.warmup_steps=3", TWO)
    results = in_processes(2, tmp_path / "answers", lambda: train(config))
    assert [row["step"] for row in json_lines(results[0].folder / "rotations.jsonl")] == [3, 6, 9]
    assert {row.generation for result in results for row in result.rows} == {3}


class Told(L.Callback):
    """A signal that comes to every process but the first, in the middle of a step."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 4 and rank() > 0:
            signal.raise_signal(signal.SIGTERM)


def stopped_and_resumed(
    configure: Callable[..., Config], tmp_path: Path, run: tuple[str, ...], number: int, resume_in: int
) -> tuple[Path, Path]:
    """The folders of a run that was stopped after step 5 and went on, and of one that was not."""
    config = configure(*run, f"trainer.devices={number}")
    straight = configure(*run, f"trainer.devices={number}", f"paths.runs={tmp_path / 'straight'}")

    def stopping() -> Any:
        with joined_by(Told()):
            return train(config)

    one = in_processes(number, tmp_path / "answers", lambda: train(straight))[0]
    for error in in_processes(number, tmp_path / "answers", stopping):
        assert isinstance(error, Interrupted) and "after step 5" in str(error)
    again = configure(*run, f"trainer.devices={resume_in}")
    results = in_processes(resume_in, tmp_path / "answers", lambda: train(again))
    return one.folder, results[0].folder


def test_a_signal_to_one_process_stops_all_and_the_resume_has_the_same_bits(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    straight, resumed = stopped_and_resumed(configure, tmp_path, ROTATING, 2, 2)
    assert final(resumed) == final(straight)


@pytest.mark.slow
def test_three_processes_resume_to_the_same_bits(configure: Callable[..., Config], tmp_path: Path) -> None:
    straight, resumed = stopped_and_resumed(configure, tmp_path, (*ROTATING, "data.batch_size=6"), 3, 3)
    assert final(resumed) == final(straight)


@pytest.mark.slow
@pytest.mark.parametrize(("began", "went_on"), [(2, 1), (2, 4)])
def test_another_number_of_processes_goes_on_with_the_same_data(
    configure: Callable[..., Config], tmp_path: Path, still: Path, began: int, went_on: int
) -> None:
    run = (*ROTATING, f"model={still}", "model.dropout=0")
    straight, resumed = stopped_and_resumed(configure, tmp_path, run, began, went_on)
    assert_same_run(straight, resumed)
    assert f"{went_on} processes instead of {began}" in (resumed / "run.log").read_text()


def test_the_first_process_alone_holds_the_folder(configure: Callable[..., Config], tmp_path: Path) -> None:
    config = configure(*ROTATING, TWO)
    with prepare(config).folder.held():
        answers = in_processes(2, tmp_path / "answers", lambda: train(config))
    assert ["another process is training" in str(answer) for answer in answers] == [True] * 2


def test_a_plan_says_how_the_batch_is_shared_out(configure: Callable[..., Config]) -> None:
    planned = train(configure(TWO, "dry_run=true"))
    plan = {line[:11].strip(): line[11:] for line in planned.plan.splitlines()}
    assert plan["processes"] == "2, 2 of those sentences each"
    assert plan["negatives"].startswith("3 per anchor")
    assert plan["memory"].endswith(" each")


SLURM = {
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "123456", "SLURM_NODELIST": "node[3-4]", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_NUM_NODES": "2",
}  # fmt: skip
# One of the tasks of srun --ntasks=4, which stands alone.
ONE_OF_FOUR = {"SLURM_NTASKS_PER_NODE": None, "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_LOCALID": "3"}
BATCH = {"ENVIRONMENT": "BATCH", "SLURM_JOB_ID": "123456", "SLURM_NTASKS": "4"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that no launcher has touched."""
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in (*TORCHRUN, "ENVIRONMENT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")  # so that it is undone should a test set it
    return monkeypatch


@pytest.mark.parametrize(
    ("environ", "devices", "nodes", "kind", "place"),
    [
        ({}, 1, 1, "LightningEnvironment", (0, 0)),
        ({**SLURM, "SLURM_PROCID": None}, 1, 1, "LightningEnvironment", (0, 0)),  # one run a task: a sweep by srun
        ({}, 2, 1, "LightningEnvironment", (0, 0)),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, 2, 1, "LightningEnvironment", (0, 0)),  # a batch script without srun
        (SLURM, 2, 2, "SLURMEnvironment", (3, 1)),
        (TORCHRUN, 2, 2, "TorchElasticEnvironment", (2, 0)),
        ({**SLURM, **TORCHRUN}, 2, 2, "TorchElasticEnvironment", (2, 0)),  # torchrun under srun
        ({**SLURM, **ONE_OF_FOUR}, 4, 1, "SLURMEnvironment", (3, 3)),  # srun --ntasks=4
        # What a job left over of which this process is none.
        ({"TORCHELASTIC_RUN_ID": "x"}, 1, 1, "LightningEnvironment", (0, 0)),
        (
            {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "node3", "MASTER_PORT": "29500"},
            2,
            1,
            "LightningEnvironment",
            (0, 0),
        ),
        ({"SLURM_JOB_ID": "123456"}, 1, 1, "LightningEnvironment", (0, 0)),
        ({"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "4"}, 1, 1, "LightningEnvironment", (0, 0)),  # salloc's shell
        ({"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "4"}, 4, 1, "LightningEnvironment", (0, 0)),
        ({"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, 1, 1, "LightningEnvironment", (0, 0)),
        ({**BATCH, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, 1, 1, "LightningEnvironment", (0, 0)),
        ({**BATCH, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, 4, 1, "LightningEnvironment", (0, 0)),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, 1, 1, "TorchElasticEnvironment", (0, 0)),
    ],
)
def test_who_started_the_processes_is_found(
    configure: Callable[..., Config], bare: pytest.MonkeyPatch, environ: dict[str, str | None], devices: int,
    nodes: int,
    kind: str, place: tuple[int, int],
) -> None:  # fmt: skip
    for name, value in environ.items():
        if value is not None:
            bare.setenv(name, value)
    found = cluster(configure(f"trainer.devices={devices}", f"trainer.nodes={nodes}"))
    assert type(found).__name__ == kind
    assert (found.global_rank(), found.local_rank()) == place
    if kind == "SLURMEnvironment":
        assert found.world_size() == 4
        assert found.main_address == "node3"
        assert getattr(found, "auto_requeue") is False  # noqa: B009


@pytest.mark.parametrize(
    ("environ", "overriding", "sentence"),
    [
        ({}, ("trainer.devices=3",), "data.batch_size=4 cannot be shared out equally among 3 processes"),
        ({}, ("trainer.nodes=2",), "trainer.nodes=2 needs its processes started on every node"),
        (TORCHRUN, (), "torchrun started 4 processes, but trainer.devices=1 trainer.nodes=1 asks for 1: make them its"),
        (TORCHRUN, ("trainer.devices=2",), "torchrun started 4 processes"),
        ({**TORCHRUN, "RANK": "4"}, ("trainer.devices=4",), "RANK=4 and WORLD_SIZE=4: unset RANK and LOCAL_RANK"),
        ({**TORCHRUN, "WORLD_SIZE": "four"}, ("trainer.devices=4",), "WORLD_SIZE=four, which is no number: unset it"),
        ({"RANK": "", "TORCHELASTIC_RUN_ID": "x"}, (), "RANK=, which is no number: unset it"),
        ({"WORLD_SIZE": "-1"}, (), "WORLD_SIZE=-1, which is no number"),
        ({"RANK": "0", "TORCHELASTIC_RUN_ID": "x"}, (), "RANK=0 but no LOCAL_RANK and no WORLD_SIZE: unset RANK to"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, (), "RANK=0 but no WORLD_SIZE: unset RANK and LOCAL_RANK to train in one"),
        (
            {"WORLD_SIZE": "2"},
            ("trainer.devices=2",),
            "WORLD_SIZE=2 but no RANK and no LOCAL_RANK: unset WORLD_SIZE to",
        ),
        (SLURM, (), "Slurm started this command 4 times, but trainer.devices=1 trainer.nodes=1 asks for 1: give srun"),
        (SLURM, ("trainer.devices=2",), "Slurm started this command 4 times, but trainer.devices=2"),
        (SLURM, ("trainer.devices=4",), "ntasks-per-node=2"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (), "SLURM_PROCID=0 but no SLURM_LOCALID"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "4(x2)"}, ("trainer.devices=4",), "no number"),
    ],
)
def test_processes_that_do_not_fit_are_refused(
    configure: Callable[..., Config], bare: pytest.MonkeyPatch, environ: dict[str, str], overriding: tuple[str, ...],
    sentence: str,
) -> None:  # fmt: skip
    for name, value in environ.items():
        bare.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        train(configure(*overriding))


@pytest.mark.parametrize("step", [{"SLURM_STEP_NUM_TASKS": "4"}, {}, {"SLURM_STEP_NUM_TASKS": "4", **BATCH}])
@pytest.mark.parametrize("overriding", [(), ("trainer.devices=2",), ("trainer.devices=2", "trainer.nodes=2")])
def test_every_task_of_a_step_comes_to_the_same_answer(
    configure: Callable[..., Config], bare: pytest.MonkeyPatch, step: dict[str, str], overriding: tuple[str, ...]
) -> None:
    """srun --ntasks=4, which does not say how many there are on a node."""
    answers = set()
    for task in "0123":
        for name, value in {**step, "SLURM_NTASKS": "4", "SLURM_PROCID": task, "SLURM_LOCALID": task}.items():
            bare.setenv(name, value)
        with pytest.raises(UserError, match="Slurm started this command 4 times without --ntasks-per-node") as refused:
            train(configure(*overriding))
        answers.add(str(refused.value))
    assert len(answers) == 1
    found = [cluster(configure("trainer=slurm", "trainer.accelerator=cpu")) for _ in "12"]
    assert [(one.global_rank(), one.local_rank(), one.world_size()) for one in found] == [(3, 3, 4)] * 2


@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_what_lightning_would_choke_on_is_refused_first(
    otfkd_command: Command, bare: pytest.MonkeyPatch, command: str
) -> None:
    bare.setenv("RANK", "one")
    assert_refused(otfkd_command(command), "the environment has RANK=one, which is no number: unset it")


def test_the_presets_compose(configure: Callable[..., Config], bare: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        bare.setenv(name, value)
    found = {name: configure(f"trainer={name}").trainer for name in ("gpu", "ddp", "slurm")}
    assert {name: (trainer.devices, trainer.nodes) for name, trainer in found.items()} == {
        "gpu": (1, 1), "ddp": (2, 1), "slurm": (2, 2),
    }  # fmt: skip


@pytest.mark.parametrize("key", ["trainer.devices=2", "trainer.nodes=2"])
def test_how_many_processes_train_is_no_part_of_what_is_trained(configure: Callable[..., Config], key: str) -> None:
    assert prepare(configure(key)).folder == prepare(configure()).folder
