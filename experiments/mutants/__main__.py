"""Which one-line faults the fast tests do not notice: `python -m experiments.mutants --help`.

A fault is put into a copy of the project, and the fast tests of its module, of its room and of all rooms are asked one
after another until one fails. Each is asked in a fork of this process, which has imported torch and its kin already.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.mutants.faults import Fault, generated, named

ROOT = Path(__file__).parents[2]
ROOMS = ("distill", "models", "data", "evaluation", "training")
WANTED = 95  # percent
LONGEST = 300  # seconds that the tests of a fault may take; a fault that makes them hang is noticed
_COPIED = ("otfkd", "tests", "conf", "experiments", "docs", "README.md", "Makefile", "pyproject.toml", "CITATION.cff")


def main() -> int:
    """Try faults, print what became of each, and say how many were caught."""
    asked = _arguments()
    faults = _chosen(asked)
    if not faults:
        print("no fault to try: nothing in the rooms of", ", ".join(ROOMS), "was changed")
        return 0
    _import_once()
    survived, tried, begun = [], 0, time.monotonic()
    sound: set[tuple[str, ...]] = set()
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy(Path(folder))
        for fault in faults:
            if asked.minutes and time.monotonic() - begun > 60 * asked.minutes:
                print(f"{asked.minutes:g} minutes are over: {len(faults) - tried} faults were not tried")
                break
            tried += 1
            if (caught := _caught(copy, fault, asked.tests, sound)) is None:
                survived.append(fault)
            where = f"{fault.file}:{fault.line((ROOT / fault.file).read_text(encoding='utf-8'))}"
            edit = f"{fault.before!r} -> {fault.after!r}"
            print(f"{tried}/{len(faults)}  {where}  {edit}  {caught or 'NOT CAUGHT'}", flush=True)
    share = 100 * (tried - len(survived)) / tried
    print(f"{tried - len(survived)} of {tried} faults caught: {share:.1f} %")
    return 0 if share >= WANTED else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.mutants", description=__doc__)
    parser.add_argument("--rooms", default=",".join(ROOMS), help="with commas (default: %(default)s)")
    parser.add_argument("--files", nargs="*", help="source files, instead of rooms")
    parser.add_argument("--since", metavar="COMMIT", help="only files of these rooms that were changed since")
    parser.add_argument("--known", action="store_true", help="the faults of known.toml instead of generated ones")
    parser.add_argument("--sample", type=int, default=20, help="so many of each room, by chance (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of that chance (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="begin no fault after this time")
    parser.add_argument("--tests", choices=("file", "room", "all"), default="all", help="which tests are asked at most")
    return parser.parse_args()


def _chosen(asked: argparse.Namespace) -> list[Fault]:
    if asked.known:
        return named(ROOT, Path(__file__).with_name("known.toml"))
    chance, chosen = random.Random(asked.seed), []
    groups: Sequence[Sequence[str]] = [asked.files] if asked.files else [_files(r) for r in asked.rooms.split(",")]
    changed = _changed(asked.since) if asked.since else None
    for files in groups:
        faults = [one for file in files if changed is None or file in changed for one in generated(ROOT, file)]
        chosen += chance.sample(faults, min(asked.sample, len(faults)))
    return chosen


def _files(room: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "otfkd" / room).rglob("*.py"))


def _changed(commit: str) -> set[str]:
    command = ("git", "diff", "--name-only", commit, "--", "otfkd")
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())


def _copy(folder: Path) -> Path:
    copy = folder / "otfkd"
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def _caught(copy: Path, fault: Fault, most: str, sound: set[tuple[str, ...]]) -> str | None:
    """The tests that notice a fault, None if none does; `sound` collects those that have been seen to pass without."""
    path, source = copy / fault.file, (ROOT / fault.file).read_text(encoding="utf-8")
    room, own = f"tests/{path.parent.name}", f"tests/{path.parent.name}/test_{path.name}"
    stages = {"file": [own] if (copy / own).is_file() else [], "room": [room, f"--ignore={own}"]}
    stages["all"] = ["tests", f"--ignore={room}", "--ignore=tests/test_docs.py"]
    for name, tests in stages.items():
        if tests and name != "all" and tuple(tests) not in sound:
            if _ending(copy, tests):
                sys.exit(f"{' '.join(tests)} fails without any fault: see {copy / 'output.txt'}")
            sound.add(tuple(tests))
        path.write_text(fault.put_into(source), encoding="utf-8")
        ending = _ending(copy, tests) if tests else None
        path.write_text(source, encoding="utf-8")
        if ending:
            return f"{ending} by the tests of its {name}" if name != "all" else f"{ending} by tests of other rooms"
        if name == most:
            break
    return None


def _ending(copy: Path, tests: Sequence[str]) -> str | None:
    """How tests end in a fork of this process: None if all pass."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(copy)
        _silence(copy / "output.txt")
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "otfkd")]:
            del sys.modules[name]
        import pytest

        os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])))
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return None if os.waitstatus_to_exitcode(status) == 0 else "caught"
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "caught by a time limit"


def _silence(path: Path) -> None:
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _import_once() -> None:
    """What every test imports and no fault is in."""
    sys.dont_write_bytecode = True  # a file that changes twice in a second would be taken for its earlier self
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import hydra  # noqa: F401
    import lightning.pytorch  # noqa: F401
    import sentence_transformers  # noqa: F401
    import torch
    import transformers.models.bert.modeling_bert  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
