"""Runs read back, from folders made by hand."""

from pathlib import Path
from typing import Any

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.reporting.methods import read_methods, shared_moments
from tests.support.run_folders import follows, refusal, rotation, write_run

DEV = {5: 70.0, 10: 72.0}


def section(name: str, **changes: Any) -> dict[str, Any]:
    """A whole section of a config, with these keys changed."""
    settings: dict[str, Any] = load_config([]).model_dump(mode="json")[name]
    return {**settings, **changes}


def test_seeds_of_one_config_are_one_method(tmp_path: Path) -> None:
    for seed in (10, 2):
        write_run(tmp_path, {5: float(seed)}, seed=seed)
    write_run(tmp_path, DEV, name="simcse", config_hash="bbbb")
    otfkd, simcse = read_methods([tmp_path])
    assert (otfkd.legend, simcse.legend) == ("otfkd (2 seeds)", "simcse (1 seed)")
    assert [(run.seed, run.dev) for run in otfkd.runs] == [(2, {5: 2.0}), (10, {5: 10.0})]


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path, DEV)
    assert [len(method.runs) for method in read_methods([folder, tmp_path, folder.parent])] == [1]


def test_methods_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for number, every in enumerate((125, 250)):
        write_run(tmp_path, DEV, config_hash=f"{number}", schedule=section("schedule", every=every))
    write_run(tmp_path, DEV, name="simcse", config_hash="bbbb", schedule=section("schedule", every=None))
    assert [method.label for method in read_methods([tmp_path])] == ["otfkd, every 125", "otfkd, every 250", "simcse"]


def test_a_key_that_was_renamed_tells_no_methods_apart(tmp_path: Path) -> None:
    for every, keep in ((125, "keep"), (250, "keep_snapshots")):
        write_run(tmp_path, DEV, config_hash=f"{every}", schedule={"every": every, keep: 2})
    assert [method.label for method in read_methods([tmp_path])] == ["otfkd, every 125", "otfkd, every 250"]


@pytest.mark.parametrize("more", [0, 3])
def test_where_nothing_or_too_much_differs_the_hash_tells_them_apart(tmp_path: Path, more: int) -> None:
    keys = ("lr", "weight_decay", "clip_norm")[:more]
    for number, value in enumerate(("aaaa", "bbbb"), 1):
        optimizer = section("optimizer", **dict.fromkeys(keys, float(number)))
        write_run(tmp_path, DEV, config_hash=value, paths={"runs": value}, optimizer=optimizer)
    assert [method.label for method in read_methods([tmp_path])] == ["otfkd, aaaa", "otfkd, bbbb"]


def test_a_section_of_another_version_is_unknown_and_no_difference(tmp_path: Path) -> None:
    sections = {"a": {"decay": "linear"}, "b": section("optimizer", lr=1.0), "c": section("optimizer", lr=2.0)}
    for value, optimizer in sections.items():
        write_run(tmp_path, DEV, config_hash=value, optimizer=optimizer)
    first, *others = read_methods([tmp_path])
    assert first.runs[0].config.optimizer is None
    assert [method.label for method in (first, *others)] == ["otfkd, a", "otfkd, lr 1.0", "otfkd, lr 2.0"]


def test_runs_set_aside_are_not_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path, DEV)
    folder.rename(folder.with_name("s0.kept-1"))
    write_run(tmp_path, {5: 1.0})
    (method,) = read_methods([tmp_path])
    assert [run.dev for run in method.runs] == [{5: 1.0}]
    (kept,) = read_methods([folder.with_name("s0.kept-1")])  # unless it is named itself
    assert kept.runs[0].dev == DEV


def test_dev_chose_the_first_of_equals(tmp_path: Path) -> None:
    write_run(tmp_path, {5: 70.0, 10: 72.0, 15: 72.0, 20: 71.0})
    assert read_methods([tmp_path])[0].runs[0].selected == (10, 72.0)


def test_rotations_and_refusals_are_told_apart(tmp_path: Path) -> None:
    lines = [rotation(4), refusal(8), rotation(12, event="rotated")]
    write_run(tmp_path, DEV, lines)
    (run,) = read_methods([tmp_path])[0].runs
    assert (run.rotated, run.refused, run.last) == ((4, 12), (8,), 12)


def test_a_moving_average_follows_and_is_no_rotation(tmp_path: Path) -> None:
    write_run(tmp_path, DEV, [follows(3)])
    (run,) = read_methods([tmp_path])[0].runs
    assert (run.rotated, run.follows, run.without_rotation) == ((), 3, None)


def test_a_course_without_rotation_says_why(tmp_path: Path) -> None:
    def told(*records: dict[str, Any]) -> str | None:
        folder = write_run(tmp_path / str(len(list(tmp_path.iterdir()))), DEV, records)
        return read_methods([folder])[0].runs[0].without_rotation

    assert told() is None
    assert told(rotation(4), refusal(8)) is None
    assert told(refusal(4)) == "the rotation did not take place: worse"
    assert told(refusal(4), refusal(8, "dev fell")) == "none of 2 rotations took place, the last as dev fell"


def test_moments_end_where_a_seed_ends_or_goes_another_way() -> None:
    whole = {(5, 0): 1.0, (10, 0): 1.0, (15, 0): 1.0}
    assert shared_moments([whole, {(5, 0): 2.0, (10, 0): 2.0}]) == [(5, 0), (10, 0)]
    assert shared_moments([whole, {(5, 0): 2.0, (11, 0): 2.0, (15, 0): 2.0}]) == [(5, 0)]


def assert_refused(paths: list[Path], *words: str) -> None:
    """One sentence that says these things."""
    with pytest.raises(UserError) as caught:
        read_methods(paths)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, DEV)
    (folder / "metrics.jsonl").unlink()
    assert_refused([tmp_path], str(folder), "metrics.jsonl", "train it again")


def test_a_config_without_a_seed_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, DEV)
    (folder / "config.yaml").write_text("name: otfkd\n")
    assert_refused([tmp_path], f"{folder}/config.yaml", "seed", "train the run again")


def test_a_broken_line_is_no_traceback(tmp_path: Path) -> None:
    folder = write_run(tmp_path, DEV)
    (folder / "rotations.jsonl").write_text('{"step": 5,\n')
    assert_refused([tmp_path], str(folder), "cannot be read")


def test_metrics_without_a_dev_score_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {})
    assert (folder / "metrics.jsonl").read_text() == ""
    assert_refused([tmp_path], f"{folder}/metrics.jsonl", "no dev score yet")


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    assert_refused([tmp_path], str(tmp_path), "holds no run")
    assert_refused([tmp_path / "absent"], "absent", "holds no run")


def test_runs_with_different_dev_tasks_are_not_drawn_together(tmp_path: Path) -> None:
    write_run(tmp_path, DEV)
    write_run(tmp_path, DEV, name="simcse", suite="6")
    assert_refused([tmp_path], "different dev tasks")


def test_copies_of_a_run_are_not_two_seeds(tmp_path: Path) -> None:
    write_run(tmp_path / "a", DEV)
    write_run(tmp_path / "b", DEV)
    assert_refused([tmp_path], "are the same run")
