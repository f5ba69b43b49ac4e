"""What all commands share: Hydra around a task, errors as one sentence, exit codes."""

import argparse
import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from otfkd.base.errors import Interrupted, UserError, exits_as_errors, first_line, refusals_as_user_errors
from otfkd.base.logs import log_to_terminal
from otfkd.base.signals import signals_interrupt
from otfkd.base.version import __version__
from otfkd.config.composition import (
    check_jobs,
    check_single,
    prepare_overrides,
    searched,
    searching,
    usable,
    valid_keys,
)
from otfkd.config.groups import also_in, conf_dir, own_dirs
from otfkd.config.messages import unknown_flag
from otfkd.config.schema import Root

# Has Hydra compose what it finds in folders of groups, ours before a user's own, and do a job once or many times.
Start = Callable[[Sequence[Path], Callable[[DictConfig], Any]], Any]

DONE, OURS, USERS, INTERRUPTED = 0, 1, 2, 130


def command_parser(name: str, description: str | None, **more: Any) -> argparse.ArgumentParser:
    """What reads the arguments of a command that Hydra does not compose."""
    parser = argparse.ArgumentParser(prog=name, description=description, **more)
    _tells_version(parser)
    return parser


def _tells_version(parser: argparse.ArgumentParser) -> None:
    what = "show otfkd's version and exit"
    parser.add_argument("--version", action="version", version=f"otfkd {__version__}", help=what)


def whole_numbers(text: str) -> tuple[int, ...]:
    """The numbers of an argument such as 0,1,2, each once."""
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError("give whole numbers from 0, with commas")
    return tuple(dict.fromkeys(map(int, numbers)))


def _hydra_parser() -> argparse.ArgumentParser:
    from hydra._internal.utils import get_args_parser

    parser = argparse.ArgumentParser(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
    _tells_version(parser)  # in the place of Hydra's
    parser.add_argument("--explain", nargs="?", const="", metavar="KEY", help="say what keys mean")
    return parser


def run_hydra(
    task: Callable[[DictConfig], Any],
    config_name: str,
    schema: type[Root],
    after_sweep: Callable[[Sequence[DictConfig]], None] = lambda jobs: None,
) -> None:
    """Let Hydra compose the command line and run the task, many times with --multirun, then exit with our codes.

    Args:
        task: gets the composed config.
        config_name: of the file in conf/.
        schema: what the config must satisfy.
        after_sweep: gets the composed configs of a sweep's jobs when the last of them has ended.
    """
    exit_with(lambda: _hydra(task, config_name, schema, after_sweep))


def _hydra(
    task: Callable[[DictConfig], Any],
    config_name: str,
    schema: type[Root],
    after_sweep: Callable[[Sequence[DictConfig]], None],
) -> None:
    # Intermixed: a flag may stand anywhere among the overrides.
    parsed, unknown = _hydra_parser().parse_known_intermixed_args()
    if unknown:
        raise unknown_flag(unknown[0], valid_keys(schema), schema.command)
    if parsed.explain is not None:
        from otfkd.cli.explain import explain

        explain(schema, parsed.explain)
        return
    if parsed.shell_completion:
        _complete(task, config_name, parsed.overrides)
        return
    if parsed.multirun and (parsed.cfg or parsed.info):
        raise UserError("--cfg and --info tell of one run, and -m makes several: leave one of them out")
    given, folders = searched(parsed.overrides)
    flags = _without_config_dir([argument for argument in sys.argv[1:] if argument not in parsed.overrides])
    with also_in([*([Path(parsed.config_dir)] if parsed.config_dir else []), *folders]):
        overrides = prepare_overrides(given, schema)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print with a traceback
        start: Start = functools.partial(_start, config_name, flags, overrides)
        if parsed.multirun:
            _run_jobs(start, task, config_name, schema, overrides, after_sweep)
        else:
            _run_alone(start, task, schema, overrides)


def _complete(task: Callable[[DictConfig], Any], config_name: str, asked: list[str]) -> None:
    """Let Hydra install the completion of its commands in a shell, or answer one."""
    steps = [text.partition("=")[0] for text in asked]
    if len(steps) != 1 or steps[0] not in ("install", "uninstall", "query"):
        raise UserError("-sc completes in a shell: write -sc install=bash, or zsh or fish, and evaluate what it prints")
    _start(config_name, ["-sc"], asked, [conf_dir(), *own_dirs()], task)


def _without_config_dir(flags: list[str]) -> list[str]:
    """The folder that it names is searched as any other of the user's."""
    named = ("--config-dir", "-cd")
    values = [flags.index(flag) + 1 for flag in named if flag in flags]
    return [
        flag
        for number, flag in enumerate(flags)
        if number not in values and flag not in named and not flag.startswith("--config-dir=")
    ]


def _start(
    config_name: str, flags: list[str], overrides: list[str], groups: Sequence[Path], job: Callable[[DictConfig], Any]
) -> Any:
    import hydra

    ours, *own = groups
    sys.argv[1:] = [*flags, *searching(own), *overrides]
    return hydra.main(version_base="1.3", config_path=str(ours), config_name=config_name)(job)()


def _run_jobs(
    start: Start,
    task: Callable[[DictConfig], Any],
    config_name: str,
    schema: type[Root],
    overrides: list[str],
    after_sweep: Callable[[Sequence[DictConfig]], None],
) -> None:
    from otfkd.cli.sweep import SweepTask, check_launcher, frozen, planned, run_sweep

    check_launcher(overrides, multirun=True)
    jobs = planned(overrides)
    job = SweepTask(task, schema, overrides, len(jobs))
    job.tell(jobs, check_jobs(jobs, schema, config_name, job.shared))
    with frozen([conf_dir(), *own_dirs()], overrides) as groups:
        run_sweep(functools.partial(start, groups), job, after_sweep)


def _run_alone(start: Start, task: Callable[[DictConfig], Any], schema: type[Root], overrides: list[str]) -> None:
    from otfkd.cli.sweep import check_launcher

    check_single(overrides)
    check_launcher(overrides, multirun=False)
    failures: list[Exception] = []

    @functools.wraps(task)
    def alone(composed: DictConfig) -> None:
        try:
            with exits_as_errors():
                task(usable(composed, schema))
        except Exception as error:  # raised below: Hydra would put a line of its own before our sentence
            failures.append(error)

    start([conf_dir(), *own_dirs()], alone)
    if failures:
        raise failures[0]


def exit_with(action: Callable[[], Any]) -> None:
    """Run an action and exit: 0 done, 2 the user's error, 1 ours, 130 interrupted."""
    # Before torch loads: OpenMP threads that spin while they wait make a step tens of times slower on a shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    log_to_terminal()
    try:
        with refusals_as_user_errors(), signals_interrupt():
            action()
    except UserError as error:
        _fail(USERS, str(error))
    except BrokenPipeError:
        # The reader has seen enough, as `| head` has; without this Python complains once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Interrupted, KeyboardInterrupt) as error:
        _fail(INTERRUPTED, str(error) or "interrupted")
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):
            _fail(USERS, _first_sentence(error))
        _fail(OURS, f"{type(error).__name__}: {first_line(error)} (a fault of otfkd's; the traceback is in run.log)")
    raise SystemExit(DONE)


def _fail(code: int, message: str) -> None:
    sys.stderr.write(f"otfkd: {message}\n")
    if os.environ.get("OTFKD_TRACEBACK"):
        traceback.print_exc()
    raise SystemExit(code)


def _first_sentence(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:2])


def keep_traceback(runs: str) -> None:
    """Append the current traceback to the log beside the runs, for errors that come before a run has a folder."""
    folder = Path(runs)
    if folder.is_dir() and os.access(folder, os.W_OK):
        # On a full disk the error itself is what counts.
        with contextlib.suppress(OSError), (folder / "run.log").open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
