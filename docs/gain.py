"""Draws docs/gain.svg from the published rows of the main table: `python docs/gain.py`."""

import json
from collections import defaultdict
from html import escape
from pathlib import Path
from statistics import fmean

import numpy as np

from otfkd.evaluation.significance import paired_t
from otfkd.tables.definition import load_table

DOCS = Path(__file__).parent
ROWS = DOCS.parent / "experiments/results/small.jsonl"
TEACHER, BASELINE = "simcse", "static"
LOW, HIGH = -1.25, 1.0  # points, the ends of the axis
LEFT, RIGHT, COST, TOP, STEP = 265, 620, 725, 92, 30  # pixels


def picture() -> str:
    """The SVG: each row's gain over the fixed teacher, seed by seed, with its interval and its cost."""
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    passes: dict[str, int] = {}
    for line in ROWS.read_text().splitlines():
        published = json.loads(line)
        row = published["result"]
        if published["table"] == "main" and row["seed"] is not None:
            scores[published["row"]][row["seed"]] = row["average"]
            passes[published["row"]] = row["cost"]["forwards"]
    rows = [row for row in load_table("main", "small").at("small") if row.name in scores]
    height = TOP + STEP * len(rows) + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        "<title>What each method gains over a teacher that stays, and what it costs</title>",
        f'<rect width="760" height="{height}" fill="#ffffff"/>',
        _text(20, 28, "Gain over the same teacher kept, in points (mean of seven STS tasks)", size=16),
        _text(20, 50, "Dots: three seeds. Bars: 95 % intervals over seeds, each test by itself.", colour="#555555"),
        _text(COST, TOP - 16, "encoder passes", anchor="end", colour="#555555"),
    ]
    bottom = TOP + STEP * len(rows)
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = _x(tick)
        line = 'stroke="#222222" stroke-width="1.5"' if tick == 0 else 'stroke="#dddddd"'
        parts += [
            f'<path d="M{x} {TOP - 6}V{bottom}" {line}/>',
            _text(x, bottom + 20, f"{tick:+.1f}" if tick else "0", anchor="middle", colour="#555555"),
        ]
    for number, row in enumerate(rows):
        y = TOP + STEP * number + 14
        cost = passes[row.name] + (passes[TEACHER] if row.name != TEACHER else 0)
        parts += [_text(20, y + 5, row.label), _text(COST, y + 5, f"{cost:,}", anchor="end")]
        if row.name == BASELINE:
            parts.append(f'<circle cx="{_x(0)}" cy="{y}" r="5" fill="#222222"/>')
            continue
        seeds = sorted(scores[BASELINE].keys() & scores[row.name].keys())
        kept, gained = (np.array([scores[name][seed] for seed in seeds]) for name in (BASELINE, row.name))
        (low, high), _ = paired_t(kept, gained)
        parts.append(f'<path d="M{_x(low)} {y}H{_x(high)}" stroke="#0072b2" stroke-width="2"/>')
        parts += [
            f'<circle cx="{_x(gain)}" cy="{y}" r="3.5" fill="#56b4e9" stroke="#0072b2"/>' for gain in gained - kept
        ]
        mean = _x(fmean(gained - kept))
        parts.append(f'<path d="M{mean} {y - 8}V{y + 8}" stroke="#0072b2" stroke-width="3"/>')
    return "\n".join([*parts, "</svg>", ""])


def _x(points: float) -> float:
    return round(LEFT + (points - LOW) / (HIGH - LOW) * (RIGHT - LEFT), 1)


def _text(x: float, y: float, text: str, *, size: int = 14, anchor: str = "start", colour: str = "#111111") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


if __name__ == "__main__":
    (DOCS / "gain.svg").write_text(picture())
