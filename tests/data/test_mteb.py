"""mteb's data sets, with local folders standing in for the download."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pytest
from datasets.exceptions import DatasetNotFoundError

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.data import mteb
from otfkd.data.sts import DevTask, Suite, load_suite

SICK = "SICK-R (mteb, 9927 pairs)"
SIZES = {"STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186, "STS-B": 1379, SICK: 9927}
NAMES = {
    "STS12": "sts12-sts", "STS13": "sts13-sts", "STS14": "sts14-sts", "STS15": "sts15-sts", "STS16": "sts16-sts",
    "STS-B": "stsbenchmark-sts", SICK: "sickr-sts",
}  # fmt: skip


def write(folder: Path, split: str, pairs: int, **changes: Any) -> None:
    """A split of a data set as a file of JSON lines; every sentence has a double space inside and one around."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}.jsonl").open("w") as file:
        for i in range(pairs):
            row = {"sentence1": f" {split}  {i} left", "sentence2": f"{split} {i}  right ", "score": i % 51 / 10}
            file.write(json.dumps({**row, **changes}) + "\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with the published numbers of pairs."""
    root = tmp_path_factory.mktemp("mteb")
    for task, name in NAMES.items():
        write(root / name, "test", SIZES[task])
    write(root / "stsbenchmark-sts", "validation", 1500)
    return root


@pytest.fixture(scope="module")
def suite(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return load(whole, tmp_path_factory.mktemp("cache"))


def load(root: Path, cache: Path) -> Suite:
    config = load_config(["evaluation=mteb", f"evaluation.path={root}"])
    return load_suite(config.evaluation, None, cache)


def test_every_task_has_the_published_number_of_pairs(suite: Suite) -> None:
    assert {task.name: task.size for task in suite.test} == SIZES
    assert (suite.name, suite.dev.name, suite.dev.size) == ("mteb", "STS-B dev", 1500)
    assert isinstance(suite.dev, DevTask)


def test_all_of_sick_cannot_pass_for_its_test_split(suite: Suite) -> None:
    assert [task.name for task in suite.test if "SICK" in task.name] == [SICK]


def test_sentences_are_left_as_they_are_and_the_protocol_says_so(suite: Suite) -> None:
    assert suite.dev.subsets[0].pairs[3] == (" validation  3 left", "validation 3  right ", 0.3)
    assert suite.test[5].subsets[0].pairs[52] == (" test  52 left", "test 52  right ", 0.1)
    assert suite.text == "sentences as published"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(["evaluation=mteb", "paths.data_root=/of/senteval", f"paths.cache={tmp_path / 'cache'}"])


def test_the_hubs_data_sets_are_asked_for(config: Config, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def serve(path: str, *, split: str, cache_dir: str) -> datasets.Dataset:
        asked.append((path, split))
        assert cache_dir == f"{config.paths.cache}/datasets"
        with (whole / Path(path).name / f"{split}.jsonl").open() as file:
            return datasets.Dataset.from_list([json.loads(line) for line in file])

    monkeypatch.setattr(datasets, "load_dataset", serve)
    suite = load_suite(config.evaluation, config.paths.data_root, Path(config.paths.cache))
    assert sorted(asked) == sorted(
        [*((f"mteb/{name}", "test") for name in NAMES.values()), ("mteb/stsbenchmark-sts", "validation")]
    )
    assert {task.name: task.size for task in suite.test} == SIZES


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no network\nand more"), DatasetNotFoundError("no such data set"), httpx2.ReadTimeout(""),
        OSError("disk full"), ValueError('Unknown split "test"'),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_hub_that_cannot_be_reached_says_the_way_out(
    config: Config, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError) as caught:
        load_suite(config.evaluation, None, Path(config.paths.cache))
    message = str(caught.value)
    assert "of mteb/stsbenchmark-sts cannot be had" in message
    assert message.endswith("or use evaluation=sts")
    assert "\n" not in message


def pairs(root: Path, cache: Path, expected: int = 5) -> object:
    return mteb.pairs(str(root), "sts12-sts", "test", expected, cache)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: write(folder, "test", 4), "the split test of .*sts12-sts has 4 pairs, not 5"),
        (lambda folder: write(folder, "validation", 5), "the split test of .*sts12-sts cannot be had"),
        (lambda folder: write(folder, "test", 5, score=5.5), "row 1 of .*sts12-sts has the grade '5.5'"),
        (lambda folder: write(folder, "test", 5, score=None), "row 1 of .*sts12-sts has the grade 'None'"),
        (lambda folder: write(folder, "test", 5, score="high"), "row 1 of .*sts12-sts has the grade 'high'"),
        (lambda folder: folder.mkdir(), "cannot be had"),
    ],
    ids=["few", "split", "above", "none", "word", "empty"],
)
def test_a_data_set_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(tmp_path / "sts12-sts")
    with pytest.raises(UserError, match=message):
        pairs(tmp_path, tmp_path / "cache")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "sts12-sts").mkdir()
    (tmp_path / "sts12-sts" / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b"}\n')
    with pytest.raises(UserError, match="sts12-sts has no column score"):
        pairs(tmp_path, tmp_path / "cache", 1)


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be had"):
        pairs(tmp_path / "none", tmp_path / "cache")
