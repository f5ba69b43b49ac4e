"""The STS tasks as mteb publishes them (Muennighoff et al. 2023): hub data sets of sentence1, sentence2 and score.

They hold the pairs of SentEval's tasks, but for SICK-R, which is all of SICK here and its test split there.
"""

from pathlib import Path

from otfkd.base.errors import UserError, first_line
from otfkd.data.grades import GradedPairs, check_grade

# Task to data set and number of pairs of its test split. SICK-R's name says what it is wherever its score is shown.
TEST = {
    "STS12": ("sts12-sts", 3108),
    "STS13": ("sts13-sts", 1500),
    "STS14": ("sts14-sts", 3750),
    "STS15": ("sts15-sts", 3000),
    "STS16": ("sts16-sts", 1186),
    "STS-B": ("stsbenchmark-sts", 1379),
    "SICK-R (mteb, 9927 pairs)": ("sickr-sts", 9927),
}
DEV = ("stsbenchmark-sts", "validation", 1500)

_COLUMNS = ("sentence1", "sentence2", "score")


def pairs(source: str, name: str, split: str, expected: int, cache: Path) -> GradedPairs:
    """The pairs of a split of a data set, with their sentences untouched.

    Args:
        source: the hub's organisation that has the data set, or a folder that has it as a folder.
        name: of the data set.
        split: of the data set.
        expected: pairs it must have.
        cache: a folder for what the datasets library keeps.

    Raises:
        UserError: it cannot be had, or is not what it should be, by its name.
    """
    import httpx2
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    where = f"{source}/{name}"
    try:
        rows = load_dataset(where, split=split, cache_dir=str(cache / "datasets"))
    except (DatasetsError, OSError, ValueError, httpx2.HTTPError) as error:
        raise UserError(
            f"the split {split} of {where} cannot be had ({first_line(error)}): give evaluation.path=FOLDER that "
            f"holds mteb's data sets, or use evaluation=sts"
        ) from None
    if missing := [column for column in _COLUMNS if column not in rows.column_names]:
        raise UserError(f"{where} has no column {missing[0]}: give mteb's data sets, or use evaluation=sts")
    if len(rows) != expected:
        raise UserError(f"the split {split} of {where} has {len(rows)} pairs, not {expected}: fetch the data again")
    columns = zip(*(rows[column] for column in _COLUMNS), strict=True)
    return tuple(
        (left, right, check_grade(score, f"row {number} of {where}"))
        for number, (left, right, score) in enumerate(columns, 1)
    )
