"""What all commands share: Hydra around a task, errors as one sentence, exit codes."""

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from otfkd.base.errors import Interrupted, UserError, exits_as_errors, first_line, refusals_as_user_errors
from otfkd.base.logs import log_to_terminal
from otfkd.base.signals import signals_interrupt
from otfkd.config.composition import check_single, conf_dir, prepare_overrides
from otfkd.config.schema import Root

DONE, OURS, USERS, INTERRUPTED = 0, 1, 2, 130


def run_hydra(task: Callable[[DictConfig], Any], config_name: str, schema: type[Root]) -> None:
    """Let Hydra compose the command line and run the task (many times with --multirun), then exit with our codes."""
    exit_with(lambda: _hydra(task, config_name, schema))


def _hydra(task: Callable[[DictConfig], Any], config_name: str, schema: type[Root]) -> None:
    import hydra
    from hydra._internal.utils import get_args_parser

    from otfkd.cli.sweep import check_launcher, frozen, run_sweep

    parsed = get_args_parser().parse_args()
    given = parsed.overrides
    flags = [argument for argument in sys.argv[1:] if argument not in given]
    overrides = prepare_overrides(given, schema)
    if not parsed.multirun:
        check_single(overrides)
    check_launcher(overrides, multirun=parsed.multirun)
    sys.argv[1:] = [*flags, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print with a traceback

    def main(groups: Path) -> Any:
        return hydra.main(version_base="1.3", config_path=str(groups), config_name=config_name)

    if parsed.multirun:
        with frozen(conf_dir(), overrides) as groups:
            run_sweep(lambda job: main(groups)(job)(), task, overrides)
        return
    failures: list[Exception] = []

    @functools.wraps(task)
    def alone(composed: DictConfig) -> None:
        try:
            with exits_as_errors():
                task(composed)
        except Exception as error:  # raised below: Hydra would put a line of its own before our sentence
            failures.append(error)

    main(conf_dir())(alone)()
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
