"""`make bench`: every benchmark in turn, one table, and a file for each in results/."""

import argparse
from types import ModuleType

from experiments.benchmarks import evaluation, memory, starting, steps
from experiments.benchmarks.common import RESULTS, machine, show, write

BENCHMARKS: dict[str, ModuleType] = {"steps": steps, "evaluation": evaluation, "starting": starting, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this machine; ratios, all in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    rows = []
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"{name} is no benchmark: take some of {', '.join(BENCHMARKS)}")
        found = BENCHMARKS[name].measure()
        write(name, found)
        rows += found
    here = machine()
    show(f"{here['processor']}, {here['threads']} threads; files in {RESULTS}", rows)


if __name__ == "__main__":
    main()
