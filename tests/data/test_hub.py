"""Hub data sets, with local files standing in for the download."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.data.sources import find_corpus
from otfkd.data.sts import load_suite
from tests.support.senteval import make_senteval

Serve = Callable[[Path | Exception], list[tuple[str, str]]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Make the hub answer with a local file or an error; gives the list of what is asked of it."""

    def use(answer: Path | Exception) -> list[tuple[str, str]]:
        asked: list[tuple[str, str]] = []

        def download(repo: str, file: str, *, repo_type: str) -> str:
            assert repo_type == "dataset"
            asked.append((repo, file))
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return asked

    return use


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(["data=wiki1m", "evaluation=sts", "paths.data_root=null", f"paths.cache={tmp_path / 'cache'}"])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of the synthetic tasks, with them where the published one has them."""
    folder = tmp_path_factory.mktemp("hub")
    make_senteval(folder / "SentEval" / "data" / "downstream")
    with tarfile.open(folder / "senteval.tar", "w") as tar:
        tar.add(folder / "SentEval", "SentEval")
    return folder / "senteval.tar"


def load(config: Config) -> object:
    return load_suite(config.evaluation, config.paths.data_root, Path(config.paths.cache))


def find(config: Config) -> object:
    return find_corpus(config.data, Path(config.paths.cache))


def test_the_wikipedia_sentences_come_from_the_hub(config: Config, serve: Serve, tmp_path: Path) -> None:
    text = tmp_path / "blob"
    text.write_text("one\ntwo\n")
    asked = serve(text)
    corpus = find_corpus(config.data, tmp_path)
    assert [sentence for _, sentence in corpus.sentences()] == ["one", "two"]
    assert asked == [("princeton-nlp/datasets-for-simcse", "wiki1m_for_simcse.txt")]


def test_the_sts_tasks_come_from_the_hub(config: Config, serve: Serve, archive: Path) -> None:
    asked = serve(archive)
    suite = load_suite(config.evaluation, None, Path(config.paths.cache))
    assert [task.size for task in suite.test] == [3108, 1500, 3750, 3000, 1186, 1379, 4927]
    assert asked == [("princeton-nlp/datasets-for-simcse", "senteval.tar")]


def test_the_archive_is_unpacked_once(
    config: Config, serve: Serve, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(archive)
    first = load(config)
    monkeypatch.delattr(tarfile, "open")
    assert load(config) == first


def test_an_archive_unpacked_by_half_is_unpacked_again(
    config: Config, serve: Serve, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(archive)

    def interrupt(self: tarfile.TarFile, path: Path, **_: object) -> None:
        (path / "SentEval/data/downstream/STS/STS12-en-test").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(config)
    assert load(config)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no network\nand more"),
        RemoteEntryNotFoundError(
            "no such file", response=httpx2.Response(404, request=httpx2.Request("GET", "http://hub"))
        ),
        httpx2.ConnectError("no route"),
        httpx2.ReadTimeout(""),
        OSError("disk full"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("ask", "way_out"),
    [(find, "use data=text data.path=FILE"), (load, "use evaluation.path=FOLDER or OTFKD_DATA=FOLDER")],
)
def test_a_hub_that_cannot_be_reached_says_the_way_out(
    config: Config, serve: Serve, ask: Callable[[Config], object], way_out: str, error: Exception
) -> None:
    serve(error)
    with pytest.raises(UserError) as caught:
        ask(config)
    message = str(caught.value)
    assert "princeton-nlp/datasets-for-simcse cannot be had" in message
    assert message.endswith(way_out)
    assert "\n" not in message


def test_a_name_the_hub_cannot_have_is_refused(tmp_path: Path) -> None:
    config = load_config(["data=wiki1m", "data.repo=bad--..name"])
    with pytest.raises(UserError, match=r"bad--..name cannot be had"):
        find_corpus(config.data, tmp_path)


def cut(archive: Path, path: Path) -> None:
    path.write_bytes(archive.read_bytes()[:1_000_000])


def page(archive: Path, path: Path) -> None:
    path.write_text("<!DOCTYPE html>")


def cut_gzip(archive: Path, path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(archive.read_bytes())[:100_000])


@pytest.mark.parametrize("spoil", [cut, cut_gzip, page])
def test_a_broken_archive_is_refused(
    config: Config, serve: Serve, archive: Path, tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    broken = tmp_path / "broken.tar"
    spoil(archive, broken)
    serve(broken)
    with pytest.raises(UserError, match=rf"{broken} is not a whole tar archive .*: delete it and start again"):
        load(config)


def test_an_archive_that_climbs_out_of_its_folder_is_refused(config: Config, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with tarfile.open(tmp_path / "climbing.tar", "w") as tar:
        tar.add(tmp_path / "file", "../../climbed")
    serve(tmp_path / "climbing.tar")
    with pytest.raises(UserError, match="is not a whole tar archive"):
        load(config)
    assert not list(tmp_path.rglob("climbed"))


def test_an_archive_without_sts_is_refused(config: Config, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "file", "readme")
    serve(tmp_path / "other.tar")
    with pytest.raises(UserError, match=r"senteval.tar .* holds no STS12-en-test: give evaluation.path=FOLDER instead"):
        load(config)
