"""Hashes, revisions and seeds that name what was computed."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import otfkd.base.provenance
from otfkd.base.hashing import derived_seed, fingerprint_folder, hash_weights
from otfkd.base.provenance import environment, git_revision
from otfkd.config.identity import resolve_precision
from otfkd.config.schema import Config
from otfkd.models.encoder import Encoder
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.training.run import prepare

git_revision_anew: Callable[[], str] = git_revision.__wrapped__


def test_weights_hash_alike_after_save_and_load(tiny_encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(tiny_encoder, tmp_path / "model", 128)
    assert hash_weights(load_encoder(tmp_path / "model")) == hash_weights(tiny_encoder)


def test_one_changed_weight_changes_the_hash(tiny_encoder: Encoder) -> None:
    before = hash_weights(tiny_encoder)
    with torch.no_grad():
        next(tiny_encoder.parameters()).view(-1)[7] += 1e-6
    assert hash_weights(tiny_encoder) != before


def test_weights_hash_by_name_shape_and_value() -> None:
    def hashed(module: torch.nn.Module) -> str:
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)
        return hash_weights(module)

    wide, tall = torch.nn.Linear(4, 2, bias=False), torch.nn.Linear(2, 4, bias=False)
    named = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False))
    half = torch.nn.Linear(4, 4, bias=False).half()
    assert len({hashed(wide), hashed(tall), hashed(named), hashed(half)}) == 4


def test_a_folder_hashes_by_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> str:
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / f"{file}.json").write_text(content)
        (tmp_path / name / "README.md").write_text(name)
        return fingerprint_folder(tmp_path / name, ["*.json"])

    first = folder("first", a="1", b="2")
    assert folder("again", b="2", a="1") == first
    assert first not in {folder("swapped", a="2", b="1"), folder("renamed", a="1", c="2"), folder("fewer", a="1")}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let otfkd lie in a folder of a repository with one commit; gives a function that places it."""

    def git(*arguments: str) -> None:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")

    def place(below: str) -> None:
        package = tmp_path / below / "otfkd" / "base"
        package.mkdir(parents=True)
        monkeypatch.setattr(otfkd.base.provenance, "__file__", str(package / "provenance.py"))

    return place


def test_the_revision_is_the_checkouts_head(checkout: Callable[[str], None], tmp_path: Path) -> None:
    checkout("")
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert git_revision_anew() == head.stdout.strip()


def test_uncommitted_changes_make_the_revision_dirty(checkout: Callable[[str], None], tmp_path: Path) -> None:
    checkout("")
    (tmp_path / "file").write_text("2")
    assert git_revision_anew().endswith("-dirty")


def test_a_repository_around_an_installed_package_is_not_its_revision(checkout: Callable[[str], None]) -> None:
    checkout("venv/site-packages")
    assert git_revision_anew() == "unknown"


def test_outside_a_repository_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "otfkd" / "base").mkdir(parents=True)
    monkeypatch.setattr(otfkd.base.provenance, "__file__", str(tmp_path / "otfkd" / "base" / "provenance.py"))
    assert git_revision_anew() == "unknown"


def test_derived_seeds_differ_in_their_low_32_bits() -> None:
    seeds = [derived_seed(seed, purpose, batch) for seed in (0, 1) for purpose in "ab" for batch in range(1000)]
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 4000


def test_each_bit_of_a_derived_seed_is_as_often_one_as_zero() -> None:
    ones = [sum(derived_seed(0, batch) >> bit & 1 for batch in range(2000)) for bit in range(56)]
    assert 850 < min(ones) <= max(ones) < 1150


def test_a_derived_seed_is_pinned() -> None:
    assert derived_seed(0, "dropout", 0) == 32929218967355885


def test_the_environment_names_versions_threads_and_device() -> None:
    found = environment()
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["device"]


@pytest.mark.parametrize(("features", "expected"), [({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")])
def test_auto_precision_is_what_the_cpu_computes_in(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_precision(configure("precision=auto")).precision.compute == expected
    assert resolve_precision(configure("precision=float32")).precision.compute == "float32"


def test_the_hash_is_of_the_resolved_precision(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert prepare(configure("precision=auto")).folder == prepare(configure("precision=bfloat16")).folder
    assert prepare(configure("precision=auto")).folder != prepare(configure("precision=float32")).folder
