"""What a run cost, from files made by hand."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from otfkd.base.memory import peak_memory
from otfkd.config.schema import Config
from otfkd.runs.cost import forwards, read_cost
from otfkd.runs.folder import RunFolder
from otfkd.runs.log import RunLog

Configure = Callable[..., Config]


def write(folder: Path, **files: Sequence[Mapping[str, Any]]) -> Path:
    for name in ("metrics", "rotations", "timings"):
        lines = files.get(name, ())
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_simcse_is_six_passes_a_step(configure: Configure) -> None:
    """Two views forward, and twice that backward."""
    assert forwards(configure(), [(0, 0)], 12) == 6 * 12


def test_masked_language_modelling_is_a_third_view(configure: Configure) -> None:
    assert forwards(configure("objective.mlm_weight=0.1"), [(0, 0)], 12) == 9 * 12


def test_accumulation_repeats_every_pass(configure: Configure) -> None:
    assert forwards(configure("trainer.accumulate=3"), [(0, 0)], 12) == 3 * 6 * 12


def test_chunks_are_embedded_once_more(configure: Configure) -> None:
    assert forwards(configure("trainer.chunk=3"), [(0, 0)], 12) == 8 * 12
    assert forwards(configure("trainer.chunk=8"), [(0, 0)], 12) == 6 * 12  # two views of four


def test_a_teacher_is_one_pass_a_step_from_when_it_teaches(configure: Configure) -> None:
    config = configure("experiment=otfkd", "schedule.every=4")
    assert forwards(config, [(0, 1)], 12) == 6 * 12 + 12
    assert forwards(config, [(0, 0), (4, 1), (8, 1)], 12) == 6 * 12 + 8
    assert [forwards(config, [(0, 0), (4, 1), (8, 1)], step) for step in (4, 5, 12)] == [24, 31, 80]


def test_every_member_of_a_pool_is_asked(configure: Configure) -> None:
    config = configure("experiment=otfkd_pool", "schedule.every=4")
    members = [(0, 1), (4, 2), (8, 3)]
    assert forwards(config, members, 12) == 6 * 12 + 4 * 1 + 4 * 2 + 4 * 3
    assert forwards(config, members, 6) == 6 * 6 + 4 * 1 + 2 * 2


def test_of_a_sampled_pool_one_is_asked(configure: Configure) -> None:
    config = configure("experiment=otfkd_pool", "schedule.every=4", "schedule.aggregate=sample")
    assert forwards(config, [(0, 0), (4, 2), (8, 3)], 12) == 6 * 12 + 8


def test_a_precomputed_teacher_passes_once_over_the_corpus_before_the_first_step(configure: Configure) -> None:
    run = ("experiment=distill_static", "teacher=[a,b]", "trainer.accumulate=2")
    live, precomputed = configure(*run), configure(*run, "teacher.precomputed=true")
    assert forwards(live, [(0, 2)], 12, 61) == (6 + 2) * 2 * 12
    assert forwards(precomputed, [(0, 2)], 12, 61) == 6 * 2 * 12 + 2 * 16  # of 61 sentences, 4 a batch
    assert forwards(precomputed, [(0, 2)], 3, 61) == 6 * 2 * 3 + 2 * 16
    assert forwards(configure(*run, "teacher.precomputed=true", "schedule.aggregate=sample"), [(0, 2)], 0, 61) == 32


def test_the_files_of_a_run_by_hand(configure: Configure, tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        metrics=[{"step": 3, "loss": 1.0}, {"step": 3, "dev": 50.0}, {"step": 6, "dev": 60.0}],
        rotations=[
            {"event": "refused", "step": 2, "reason": "worse"},
            {"event": "rotated", "step": 4, "generation": 1, "members": 1, "sha256": "aa"},
            {"event": "rotated", "step": 8, "generation": 2, "members": 2, "sha256": "bb"},
        ],
        timings=[
            {"event": "start", "seconds": 1.0, "step": 0},
            {"event": "dev", "seconds": 11.0, "step": 3},
            {"event": "stop", "seconds": 20.0, "step": 5, "peak_bytes": 700},
            {"event": "start", "seconds": 2.0, "step": 5},
            {"event": "dev", "seconds": 6.0, "step": 6},
            {"event": "stop", "seconds": 30.0, "step": 12, "peak_bytes": 500},
        ],
    )
    cost = read_cost(RunFolder(folder), configure("experiment=otfkd_pool", "schedule.every=4"), 0, 60, 12)
    assert cost.seconds == 50.0
    assert cost.forwards == 6 * 12 + 4 * 1 + 4 * 2
    assert cost.peak_bytes == 700
    assert cost.rotations == ((4, "aa"), (8, "bb"))
    assert (cost.refused, cost.refused_at) == (1, (2,))
    assert [(point.step, point.dev, point.seconds, point.forwards) for point in cost.curve] == [
        (3, 50.0, 11.0, 18), (6, 60.0, 26.0, 38),
    ]  # fmt: skip


def test_a_moving_average_is_one_member(configure: Configure, tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        rotations=[{"event": "follows", "step": 3, "generation": 1}],
        timings=[{"event": "start", "seconds": 0.0, "step": 0}, {"event": "stop", "seconds": 5.0, "step": 12}],
    )
    cost = read_cost(RunFolder(folder), configure("experiment=mean_teacher"), 0, 60, 12)
    assert (cost.forwards, cost.rotations, cost.peak_bytes) == (6 * 12 + 9, ((3, None),), None)


def test_what_a_killed_session_did_counts_until_its_last_word(configure: Configure, tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        timings=[
            {"event": "start", "seconds": 1.0, "step": 0},
            {"event": "dev", "seconds": 9.0, "step": 3},
            {"event": "start", "seconds": 1.0, "step": 0},
            {"event": "stop", "seconds": 40.0, "step": 12},
        ],
    )
    assert read_cost(RunFolder(folder), configure(), 0, 60, 12).seconds == 49.0


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize(("pace", "steps"), [(0.125, 400), (4.0, 300), (90.0, 50)])
def test_a_killed_attempt_costs_the_time_until_its_last_step(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: float, steps: int
) -> None:
    """Wherever it is killed, to a second or a hundredth; and no line a step."""
    clock, config = Clock(), configure()
    monkeypatch.setattr("otfkd.runs.log.time", clock)
    run = RunLog(RunFolder(tmp_path))
    opened = clock.now
    run.timing("start", step=0)
    for step in range(1, steps + 1):
        clock.now += pace
        run.alive(step)
        spent = clock.now - opened
        counted = read_cost(RunFolder(tmp_path), config, 0, 60, 12).seconds
        assert spent - max(1.0, 0.01 * spent) <= counted <= spent
    clock.now += 10_000  # dead
    again = RunLog(RunFolder(tmp_path))
    again.timing("start", step=0)
    clock.now += 7.0
    again.timing("stop", step=12)
    assert read_cost(RunFolder(tmp_path), config, 0, 60, 12).seconds == counted + 7.0
    if pace < 1:
        assert len(RunFolder(tmp_path).read_timings()) < 60


def test_every_step_of_a_run_is_told_where_steps_are_long(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otfkd.training.train import train

    monkeypatch.setattr("otfkd.runs.log._BEAT", 0.0)
    monkeypatch.setattr("otfkd.runs.log._SHARE", 0.0)
    told = RunFolder(train(configure("trainer.max_steps=4", "trainer.accumulate=2")).folder).read_timings()
    assert [one.step for one in told if one.event == "alive"] == [1, 2, 3, 4]


def test_peak_memory_is_more_than_a_megabyte() -> None:
    peak = peak_memory()
    assert peak is None or peak > 2**20


def test_a_real_run_costs_what_its_plan_says(configure: Configure, tmp_path: Path) -> None:
    from otfkd.training.train import train

    result = train(configure("experiment=otfkd", "schedule.every=4", "evaluation.every=6"))
    (cost,) = {row.cost for row in result.rows}
    assert cost is not None
    assert cost.forwards == 6 * 12 + 8  # the first teacher comes after step 4
    assert [step for step, _ in cost.rotations] == [4, 8]
    assert [point.step for point in cost.curve] == [6, 12]
    assert 0 < cost.curve[0].seconds < cost.curve[1].seconds <= cost.seconds
    assert {row.corpus_sha256 for row in result.rows} != {None}


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_teacher_that_nobody_listens_to_is_not_asked(configure: Configure, weight: float) -> None:
    config = configure("experiment=otfkd", "schedule.every=4")
    objective = config.objective.model_copy(update={"kd_weight": weight})
    config = config.model_copy(update={"objective": objective})
    assert forwards(config, [(0, 1)], 12) == 6 * 12 + 12 * (weight > 0)
