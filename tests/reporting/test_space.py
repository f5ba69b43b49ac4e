"""Pictures of embeddings, from numbers made by hand."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from otfkd.base.errors import UserError
from otfkd.reporting.space import BINS, Array, DevPairs, Placement, geometry, similarity

GOLD = np.array([0.0, 0.5, 1.0, 1.9, 2.0, 3.5, 4.0, 4.5, 5.0])
COSINES = np.array([0.21, 0.31, 0.41, 0.61, 0.51, 0.71, 0.81, 0.91, 1.0])


def reading(label: str, seed: int | None, cosines: Array = COSINES, gold: Array = GOLD) -> DevPairs:
    return DevPairs(label, seed, 0, 0, cosines, gold, 81.234)


def heights(axes: Axes, grade: int) -> Array:
    """Shares of a grade's pairs in each bin, as far as the common scale."""
    (ridge,) = (patch for patch in axes.patches if patch.get_label() == f"_{grade}")
    assert isinstance(ridge, StepPatch)
    values, edges, baseline = ridge.get_data()
    assert (len(edges), edges[0], edges[-1], baseline) == (BINS + 1, 0.2, 1.0, grade)
    return np.asarray(values) - grade


def test_ridges_count_the_pairs_of_their_grade() -> None:
    (axes,) = similarity([reading("otfkd", 0)]).axes
    members = [
        [0.21, 0.31],
        [0.41, 0.61],
        [0.51],
        [0.71],
        [0.81, 0.91, 1.0],
    ]  # a whole grade begins a bin, 5 ends the last
    tallest = max(heights(axes, 2))  # all of one pair in one bin
    for grade, cosines in enumerate(members):
        found = heights(axes, grade) / tallest
        assert sorted(found[found > 0]) == pytest.approx([1 / len(cosines)] * len(cosines))
        places = [min(int((cosine - 0.2) / 0.02), BINS - 1) for cosine in cosines]
        assert np.flatnonzero(found).tolist() == places
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "0–1\nn = 2", "1–2\nn = 2", "2–3\nn = 1", "3–4\nn = 1", "4–5\nn = 3",
    ]  # fmt: skip


def test_medians_are_marked() -> None:
    (axes,) = similarity([reading("otfkd", 0)]).axes
    found = [np.asarray(line.get_xdata())[0] for line in axes.get_lines() if line.get_label() == "_median"]
    assert found == pytest.approx([0.26, 0.51, 0.51, 0.71, 0.91])


def test_a_cosine_that_rounds_above_one_is_counted() -> None:
    cosines = COSINES.copy()
    cosines[-1] += 1e-12
    (axes,) = similarity([reading("otfkd", 0, cosines)]).axes
    assert np.count_nonzero(heights(axes, 4)) == 3


def test_a_grade_without_pairs_says_so() -> None:
    (axes,) = similarity([reading("otfkd", 0, COSINES[:4], GOLD[:4])]).axes
    assert axes.get_yticklabels()[4].get_text() == "4–5\nn = 0"
    assert sum(line.get_label() == "_median" for line in axes.get_lines()) == 2


def test_before_and_after_stand_beside_each_other_with_their_spearman() -> None:
    panels = similarity([reading("minilm, cls", None), reading("otfkd", 3), reading("otfkd", 4)]).axes
    assert [axes.get_title() for axes in panels] == [
        "minilm, cls (before)\nSpearman 81.23", "otfkd (seed 3)\nSpearman 81.23",
    ]  # fmt: skip
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_a_page_holds_six() -> None:
    assert len(similarity([reading(f"m{number}", 0) for number in range(6)]).axes) == 6
    with pytest.raises(UserError, match="holds 6 encoders"):
        similarity([reading(f"m{number}", 0) for number in range(7)])


def test_each_model_is_a_point_of_uniformity_and_alignment() -> None:
    before = Placement("minilm, cls", None, 0.1, -1.5)
    after = [Placement("otfkd", 0, 0.2, -2.5), Placement("otfkd", 1, 0.3, -2.25)]
    (axes,) = geometry([before, *after]).axes
    found = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.get_lines()}
    assert found == {"otfkd (2 seeds)": [[-2.5, 0.2], [-2.25, 0.3]], "minilm, cls (before)": [[-1.5, 0.1]]}
    assert len({line.get_marker() for line in axes.get_lines()}) == 2
