"""What every drawing has in common."""

import math
import re

from matplotlib.figure import Figure

from otfkd.reporting.style import inline_svg


def test_the_last_bit_of_a_float_does_not_reach_the_ids() -> None:
    def drawn(width: float) -> str:
        figure = Figure(figsize=(width, 2))
        figure.subplots().plot([0, 1], [0, 1], marker="o")
        return inline_svg(figure, "one")

    wide = drawn(3.0)
    assert wide == drawn(math.nextafter(3.0, 4.0))
    ids = re.findall(r'\bid="([^"]+)"', wide)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", wide)) | set(re.findall(r'href="#([^"]+)"', wide)) <= set(ids)
    assert {"one-x1", "one-x2"} < set(ids)
