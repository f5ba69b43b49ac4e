"""The table of docs/encoders.md is what its command measures, up to rounding."""

import runpy
from pathlib import Path

import pytest

from tests.support.zoo import ZOO

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_encoders_is_what_is_measured() -> None:
    made = runpy.run_path(str(DOCS / "encoders.py"))
    printed, measured = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
        for text in (made["printed"]((DOCS / "encoders.md").read_text(encoding="utf-8")), made["table"]())
    )
    assert [row[0] for row in printed] == [f"{one.name} (`{kind}`)" for kind, one in ZOO.items()]
    for (name, *cosines, rates, padding, apart), (_, *others, rates_now, padding_now, apart_now) in zip(
        printed, measured, strict=True
    ):
        assert (rates, padding, apart) == (rates_now, padding_now, apart_now) and apart == "< 1e-5", name
        for cosine, other in zip(cosines, others, strict=True):
            assert (cosine == "identical") == (other == "identical"), name
            if cosine != "identical":  # other machines round otherwise
                assert float(cosine) == pytest.approx(float(other), abs=0.011), name
