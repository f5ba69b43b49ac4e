"""Figures of runs made by hand: what is drawn is exactly what the runs say."""

import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from otfkd.base.errors import UserError
from otfkd.reporting.figures import agreement, curves
from otfkd.reporting.methods import read_methods
from otfkd.reporting.style import LOOKS, looks, save
from tests.support.run_folders import follows, refusal, rotation, write_run

STEPS = (10, 20, 30, 40)
OTFKD = ((70.0, 74.0, 73.0, 72.0), (72.0, 71.0, 75.0, 76.0))
SIMCSE = (60.5, 61.5, 61.0, 61.25)
ROTATIONS = (
    (rotation(15, None, 1.0, None, 0.0), rotation(25, 0.75, 0.5, 0.25, 0.125)),
    (rotation(15, None, 0.5, None, 0.5), rotation(25, 0.25, 1.0, 0.75, 0.375)),
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of a method that rotates and one of another that does not."""
    for seed, (scores, rotations) in enumerate(zip(OTFKD, ROTATIONS, strict=True)):
        write_run(tmp_path, dict(zip(STEPS, scores, strict=True)), rotations, seed=seed)
    write_run(tmp_path, dict(zip(STEPS, SIMCSE, strict=True)), name="simcse", config_hash="bbbb")
    return tmp_path


def lines(axes: Axes, label: str) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_label() == label]


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata().tolist()]  # type: ignore[union-attr]


def drawn(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the one line with this label."""
    (line,) = lines(axes, label)
    return points(line)


def test_a_curve_is_the_mean_of_its_seeds_and_each_of_them(runs: Path) -> None:
    above = curves(read_methods([runs])).axes[0]
    assert drawn(above, "otfkd (2 seeds)") == [(10, 71.0), (20, 72.5), (30, 74.0), (40, 74.0)]
    assert drawn(above, "simcse (1 seed)") == list(zip(STEPS, SIMCSE, strict=True))
    for seed, scores in enumerate(OTFKD):
        assert drawn(above, f"_otfkd seed {seed}") == list(zip(STEPS, scores, strict=True))


def test_one_seed_is_drawn_once_so_that_its_dashes_show(runs: Path) -> None:
    above = curves(read_methods([runs])).axes[0]
    assert [line.get_label() for line in above.get_lines() if "simcse" in str(line.get_label())] == ["simcse (1 seed)"]


def test_the_shade_is_the_range_of_seeds(runs: Path) -> None:
    shade = curves(read_methods([runs])).axes[0].collections[0]
    corners = {(float(x), float(y)) for x, y in np.asarray(shade.get_paths()[0].vertices)}
    assert corners == {(10, 70), (10, 72), (20, 71), (20, 74), (30, 73), (30, 75), (40, 72), (40, 76)}


def test_the_selected_step_of_each_seed_is_marked(runs: Path) -> None:
    above = curves(read_methods([runs])).axes[0]
    assert [points(line) for line in lines(above, "_selected")] == [[(20, 74.0), (40, 76.0)], [(20, 61.5)]]


def test_rotations_are_marked_and_their_generations_numbered(runs: Path) -> None:
    above, below = curves(read_methods([runs])).axes
    assert [x for line in lines(above, "_rotation") for x, _ in points(line)[:1]] == [15, 25]
    assert [tick.get_text() for tick in below.get_yticklabels()] == ["teacher of otfkd"]
    assert [(note.get_text(), note.xy) for note in below.texts] == [  # type: ignore[attr-defined]
        ("0", (0, 0.5)), ("1", (15, 0.5)), ("2", (25, 0.5)),
    ]  # fmt: skip
    extents = [path.get_extents() for path in below.collections[0].get_paths()]
    assert [(extent.x0, extent.x1) for extent in extents] == [(0, 15), (15, 25), (25, 40)]


def test_seeds_that_rotated_differently_have_strips_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, {10: 1.0, 30: 2.0}, [rotation(10)], seed=0)
    write_run(tmp_path, {10: 1.0, 30: 2.0}, [rotation(20), refusal(25)], seed=1)
    above, below = curves(read_methods([tmp_path])).axes
    names = [tick.get_text() for tick in below.get_yticklabels()]
    assert names == ["teacher of otfkd, seed 0", "teacher of otfkd, seed 1"]
    assert [points(line) for line in lines(below, "_refused")] == [[], [(25, 1.5)]]
    assert [points(line)[0][0] for line in lines(above, "_rotation")] == [10, 20]


def legend(figure: Figure) -> list[str]:
    (shown,) = figure.legends
    return [text.get_text() for text in shown.get_texts()]


def test_a_moving_average_is_drawn_as_a_teacher_that_follows(tmp_path: Path) -> None:
    write_run(tmp_path, {10: 1.0, 40: 2.0}, [follows(15)], name="mean_teacher")
    figure = curves(read_methods([tmp_path]))
    above, below = figure.axes
    assert not lines(above, "_rotation")
    assert [note.get_text() for note in below.texts] == ["0"]
    before, following = below.collections
    assert [path.get_extents().intervalx.tolist() for path in before.get_paths()] == [[0, 15]]
    assert [path.get_extents().intervalx.tolist() for path in following.get_paths()] == [[15, 40]]
    assert following.get_label() == "_follows"
    assert following.get_hatch() and not before.get_hatch()
    told = "teacher that follows the student: its moving average"
    assert legend(figure) == ["mean_teacher (1 seed)", "selected by dev", told]


def test_a_run_whose_rotations_were_all_refused_keeps_its_place_and_its_reason(tmp_path: Path) -> None:
    write_run(tmp_path, {10: 1.0, 40: 2.0}, [refusal(10), refusal(20, "dev fell")], name="gated")
    write_run(tmp_path, {10: 1.0, 40: 2.0}, [rotation(10, 0.5, 0.75, 1.0, 0.5)], config_hash="bbbb")
    figure = curves(read_methods([tmp_path]))
    _, below = figure.axes
    assert [tick.get_text() for tick in below.get_yticklabels()] == ["teacher of gated", "teacher of otfkd"]
    told = "none of 2 rotations took place, the last as dev fell"
    assert told in [" ".join(note.get_text().split()) for note in below.texts]
    assert [points(line) for line in lines(below, "_refused")] == [[(10, 0.5), (20, 0.5)], []]
    assert "refused rotation" in legend(figure) and "rotation to a new teacher" in legend(figure)
    (label,) = [label for label in legend(agreement(read_methods([tmp_path]))) if "gated" in label]
    assert " ".join(label.split()) == f"gated (1 seed): {told}"
    with pytest.raises(UserError, match=f"none of the runs rotated a teacher .gated .1 seed.: {told}., so there is no"):
        agreement(read_methods([tmp_path / "gated"]))


def test_runs_without_rotations_have_no_strips(tmp_path: Path) -> None:
    write_run(tmp_path, {10: 1.0}, name="simcse")
    assert len(curves(read_methods([tmp_path])).axes) == 1


def test_a_mean_ends_with_the_shortest_seed(tmp_path: Path) -> None:
    write_run(tmp_path, {10: 1.0, 20: 3.0}, seed=0)
    write_run(tmp_path, {10: 2.0}, seed=1)
    above = curves(read_methods([tmp_path])).axes[0]
    assert drawn(above, "otfkd (2 seeds)") == [(10, 1.5)]
    assert drawn(above, "_otfkd seed 0") == [(10, 1.0), (20, 3.0)]


def test_many_generations_are_numbered_as_far_as_they_fit(tmp_path: Path) -> None:
    write_run(tmp_path, {1000: 1.0}, [rotation(step) for step in range(10, 1000, 10)])
    below = curves(read_methods([tmp_path])).axes[1]
    numbers = [int(note.get_text()) for note in below.texts]
    assert 10 < len(numbers) <= 18 and numbers == list(range(0, 100, numbers[1]))


def test_agreement_is_drawn_before_and_after_each_rotation(runs: Path) -> None:
    ranks, divergence = agreement(read_methods([runs])).axes
    assert drawn(ranks, "_otfkd seed 1") == [(15, 0.5), (25, 0.25), (25, 1.0)]
    assert drawn(ranks, "otfkd (2 seeds)") == [(15, 0.75), (25, 0.5), (25, 0.75)]
    assert drawn(ranks, "_otfkd before") == [(25, 0.5)]
    assert drawn(ranks, "_otfkd after") == [(15, 0.75), (25, 0.75)]
    assert drawn(divergence, "_otfkd before") == [(25, 0.5)]
    assert drawn(divergence, "_otfkd after") == [(15, 0.25), (25, 0.25)]
    assert not lines(ranks, "simcse (1 seed)")


def test_a_refused_rotation_has_no_agreement(tmp_path: Path) -> None:
    write_run(tmp_path, {9: 1.0}, [rotation(3, 0.5, 0.75, 1.0, 0.5), refusal(6)])
    ranks, divergence = agreement(read_methods([tmp_path])).axes
    assert drawn(ranks, "_otfkd before") == [(3, 0.5)]
    assert drawn(divergence, "_otfkd after") == [(3, 0.5)]


def test_agreement_that_was_not_recorded_is_said_in_a_sentence(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {9: 1.0}, [rotation(3)])
    with pytest.raises(UserError, match="does not say how student and teacher agreed") as caught:
        agreement(read_methods([tmp_path]))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_there_is_no_agreement_without_rotations(tmp_path: Path) -> None:
    write_run(tmp_path, {9: 1.0})
    with pytest.raises(UserError, match="none of the runs rotated"):
        agreement(read_methods([tmp_path]))


def test_a_method_looks_the_same_in_every_figure(tmp_path: Path) -> None:
    write_run(tmp_path, {9: 1.0}, name="a")
    write_run(tmp_path, {9: 1.0}, [rotation(3, 1.0, 1.0, 0.0, 0.0)], name="b")
    methods = read_methods([tmp_path])
    (one,), (other,) = (lines(draw(methods).axes[0], "b (1 seed)") for draw in (curves, agreement))
    assert (one.get_color(), one.get_linestyle()) == (other.get_color(), other.get_linestyle())


def test_grey_is_enough_to_tell_series_apart(tmp_path: Path) -> None:
    for number in range(len(LOOKS)):
        write_run(tmp_path, {9: 1.0, 18: 2.0}, name=f"m{number}")
    above = curves(read_methods([tmp_path])).axes[0]
    series = [line for line in above.get_lines() if str(line.get_label()).endswith("(1 seed)")]
    assert len(series) == len(LOOKS)
    assert len({line.get_marker() for line in series}) == len(LOOKS)
    dashes = {str(line._unscaled_dash_pattern) for line in series}  # type: ignore[attr-defined]
    assert len(dashes) == len(LOOKS)
    assert len({line.get_color() for line in series}) == len(LOOKS)


def test_more_series_than_can_be_told_apart_are_refused() -> None:
    assert looks(len(LOOKS)) == LOOKS
    with pytest.raises(UserError, match="tells 9 methods apart, not 10"):
        looks(len(LOOKS) + 1)


def test_the_same_runs_give_the_same_bytes_whatever_the_settings(runs: Path) -> None:
    for draw in (curves, agreement):
        first = save(draw(read_methods([runs])), runs / "first", "x")
        with matplotlib.rc_context({"lines.linewidth": 9, "svg.hashsalt": "other", "axes.grid": True}):
            before = dict(matplotlib.rcParams)
            second = save(draw(read_methods([runs])), runs / "second", "x")
            assert dict(matplotlib.rcParams) == before
        assert [path.name for path in first] == ["x.png", "x.svg"]
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_vector_file_has_no_bitmap_date_or_font(runs: Path) -> None:
    _, svg = save(curves(read_methods([runs])), runs / "out", "x")
    text = svg.read_text()
    assert "<image" not in text and "<dc:date>" not in text and "<text" not in text


def test_a_column_is_680_dots_wide(runs: Path) -> None:
    png, _ = save(curves(read_methods([runs])), runs / "out", "x")
    assert int.from_bytes(png.read_bytes()[16:20]) == 680  # of 3.4 inches at 200 dpi


def test_nothing_needs_pyplot() -> None:
    code = "import sys, otfkd.reporting.figures, otfkd.reporting.tradeoffs, otfkd.reporting.space; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "matplotlib.figure" in loaded and not {"matplotlib.pyplot", "torch"} & set(loaded)


def test_means_are_not_medians(tmp_path: Path) -> None:
    scores = (1.0, 2.0, 9.0)
    for seed, score in enumerate(scores):
        write_run(tmp_path, {10: score}, seed=seed)
    assert drawn(curves(read_methods([tmp_path])).axes[0], "otfkd (3 seeds)") == [(10, statistics.fmean(scores))]
