"""Pictures of what a score costs, from numbers made by hand."""

import random
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from otfkd.reporting.style import save
from otfkd.reporting.tradeoffs import Setting, against_compute, against_interval, pareto_front

SWEEP = [Setting("otfkd", 250, (72.0, 74.0)), Setting("otfkd", 125, (70.0, 74.0)), Setting("group-p", 125, (75.0,))]


def bars(axes: Axes) -> dict[str, list[tuple[float, float, float, float]]]:
    """Label of a series to its points: x, mean, and where its bar ends below and above."""
    found = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (stems,) = container
        ends = [np.asarray(segment)[:, 1] for segment in stems.get_segments()]
        assert line is not None
        rows = zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), ends, strict=True)
        found[str(container.get_label())] = [(float(x), float(y), float(a), float(b)) for x, y, (a, b) in rows]
    return found


def test_an_interval_has_its_mean_and_one_deviation_to_each_side() -> None:
    (axes,) = against_interval(SWEEP, "Spearman × 100").axes
    assert axes.get_xscale() == "log"
    found = bars(axes)
    assert found.keys() == {"otfkd (2 seeds)", "group-p (1 seed)"}
    assert np.array(found["otfkd (2 seeds)"]) == pytest.approx(
        np.array([[125, 72, 72 - 8**0.5, 72 + 8**0.5], [250, 73, 73 - 2**0.5, 73 + 2**0.5]])
    )
    assert found["group-p (1 seed)"] == [(125, 75, 75, 75)]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["125", "250"]


def test_every_seed_is_a_dot() -> None:
    (axes,) = against_interval(SWEEP, "Spearman × 100").axes
    dots = [np.asarray(line.get_xydata()).tolist() for line in axes.get_lines() if line.get_label() == "_seeds"]
    assert dots == [[[125, 70], [125, 74], [250, 72], [250, 74]], [[125, 75]]]


def test_what_has_no_interval_is_a_level() -> None:
    (axes,) = against_interval(SWEEP, "Spearman × 100", {"SimCSE": (60.0, 62.0, 64.0)}).axes
    (level,) = (line for line in axes.get_lines() if line.get_label() == "SimCSE (3 seeds)")
    assert np.asarray(level.get_ydata()).tolist() == [62, 62]
    extent = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (extent.y0, extent.y1) == pytest.approx((60, 64))


def test_uneven_seeds_are_said() -> None:
    (axes,) = against_interval([Setting("a", 1, (1.0, 2.0)), Setting("a", 2, (1.0, 2.0, 3.0))], "").axes
    assert list(bars(axes)) == ["a (2 to 3 seeds)"]


def test_the_front_by_hand() -> None:
    cheap, dear, beaten = Setting("a", 1, (1.0,)), Setting("b", 3, (5.0, 7.0)), Setting("c", 2, (0.5,))
    as_dear = Setting("d", 3, (5.5,))
    assert pareto_front([dear, as_dear, beaten, cheap]) == [cheap, dear]


def test_the_front_is_what_no_other_point_beats() -> None:
    dice = random.Random(3)
    for _ in range(200):
        points = [Setting(str(n), dice.randint(1, 6), (float(dice.randint(1, 6)),)) for n in range(8)]
        beaten = {
            point.label
            for point in points
            for other in points
            if (other.x <= point.x and other.mean > point.mean) or (other.x < point.x and other.mean == point.mean)
        }
        front = pareto_front(points)
        at = {(point.x, point.mean) for point in points if point.label not in beaten}
        assert [(point.x, point.mean) for point in front] == sorted(at)


def test_compute_fills_the_front_and_draws_it() -> None:
    points = [Setting("a", 100, (1.0, 3.0)), Setting("b", 300, (6.0,)), Setting("c", 200, (1.5,))]
    (axes,) = against_compute(points, "Spearman × 100").axes
    assert bars(axes)["a (2 seeds)"][0] == pytest.approx((100, 2, 2 - 2**0.5, 2 + 2**0.5))
    (front,) = (line for line in axes.get_lines() if line.get_label() == "Pareto front")
    assert np.asarray(front.get_xydata()).tolist() == [[100, 2], [300, 6]]
    assert front.get_drawstyle() == "steps-post"
    hollow = {str(each.get_label()): each[0].get_markerfacecolor() == "white" for each in axes.containers}
    assert hollow == {"a (2 seeds)": False, "b (1 seed)": False, "c (1 seed)": True}


def test_the_same_points_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (
        [path.read_bytes() for path in save(against_compute(SWEEP, "x"), tmp_path / name, "y")] for name in "ab"
    )
    assert one == two
