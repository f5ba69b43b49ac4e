"""The embedded data set: its size, its language, and whether its grades have meaning."""

import hashlib
import importlib.metadata
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

import pytest
from scipy.stats import spearmanr

from otfkd.data import mini

SPLITS = ("dev", "test")


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def words(sentence: str) -> set[str]:
    return set(re.findall(r"[a-z]+", sentence.lower()))


def jaccard(left: str, right: str) -> float:
    return len(words(left) & words(right)) / len(words(left) | words(right))


def spearman(scores: Sequence[float], grades: Sequence[float]) -> float:
    return float(spearmanr(scores, grades).statistic)


def everything() -> list[str]:
    return [*mini.corpus(), *(sentence for split in SPLITS for left, right, _ in mini.pairs(split) for sentence in (left, right))]
