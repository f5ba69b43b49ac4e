"""A comparison of methods as text for a terminal."""

from collections.abc import Sequence

from otfkd.evaluation.significance import MIN_PERMUTATION_SEEDS, RESAMPLES, Interval, seeds_needed
from otfkd.reporting.comparison import AVERAGE, Arm, Judged, Match


def comparison_text(matches: Sequence[Match], verdicts: Sequence[Judged]) -> str:
    """What is compared, the verdicts as a table, and what a reader must know to read it."""
    return f"{_legend(matches)}\n\n{_table(matches, verdicts)}\n\n{_notes(matches, verdicts)}\n"


def _legend(matches: Sequence[Match]) -> str:
    arms = [matches[0].baseline, *(match.method for match in matches)]
    return "\n".join(f"{arm.letter}  {arm.row.name}, {arm.path}, seeds {', '.join(map(str, arm.runs))}" for arm in arms)


def _table(matches: Sequence[Match], verdicts: Sequence[Judged]) -> str:
    others = ", ".join(match.method.letter for match in matches)
    head = ["", "task", "mean A", f"mean {others}", "difference", "95 % t interval", "n", "95 % over pairs"]
    rows = [[*head, "permutation p", "p", "Holm p", "verdict"]]
    for match, verdict in verdicts:
        means = [f"{verdict.baseline:.2f}", f"{verdict.method:.2f}", f"{verdict.difference:+.2f}"]
        wanted = len(match.wanted)
        n = str(verdict.n) if verdict.n == wanted else f"{verdict.n} of {wanted}"
        intervals = [_interval(verdict.interval), n, _interval(verdict.pairs)]
        tests = [_p(verdict.permutation_p), _p(verdict.p), _p(verdict.adjusted), verdict.word]
        rows.append([match.method.letter, verdict.task, *means, *intervals, *tests])
    rows += [[match.method.letter, task, *"-" * 9, "undefined"] for match in matches for task in match.undefined]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = "".join(f"{{:{'<' if column in (0, 1, 11) else '>'}{width}}}  " for column, width in enumerate(widths))
    return "\n".join(aligned.format(*row).rstrip() for row in rows)


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _notes(matches: Sequence[Match], verdicts: Sequence[Judged]) -> str:
    """What a reader must know to read the table, and how many seeds each claim needs."""
    row = matches[0].baseline.row
    tests = sum(verdict.task != AVERAGE for _, verdict in verdicts)
    counts = [len(match.seeds) for match in matches]
    said = [
        f"Test split of suite {row.suite} ({row.suite_sha256[:8]}), {row.protocol}; checkpoint selected on dev.",
        "Differences are from A, in points; over seeds by the paired t test. The verdict is at 5 % by Holm's p, "
        f"for which all rows of tasks ({tests}) count together and an average is a claim of its own.",
    ]
    if matches[0].pairs is None:
        said.append("Over pairs: not asked for; --pairs adds it.")
    else:
        said.append(f"Over pairs: bootstrap, {RESAMPLES:,} resamples of the same pairs for every seed of both methods.")
    if min(counts) < MIN_PERMUTATION_SEEDS:
        said.append(f"No permutation p below {MIN_PERMUTATION_SEEDS} seeds: it could not be under 0.05.")
    if 1 in counts:
        said.append("Where n is 1, p is of Williams' test on ranks: of these two checkpoints, not of the two methods.")
    for match in matches:
        if lacking := [told for arm in (match.baseline, match.method) if (told := _lacking(arm, match))]:
            had = f"{len(match.seeds)} of the {len(match.wanted)} seeds that there are"
            said.append(f"{match.method.letter} is compared on {had}, no more: {'; '.join(lacking)}.")
        said += [
            f"{match.method.letter}: {task} is not compared, for it is undefined with {', '.join(whose)}."
            for task, whose in match.undefined.items()
        ]
    return "\n".join([*said, *(_seeds_line(match, verdicts) for match in matches)])


def _lacking(arm: Arm, match: Match) -> str:
    """Which seeds one side has no scores of, and why where that is known."""
    missing = [seed for seed in match.wanted if seed not in arm.runs]
    each = [f"{seed} ({arm.unfinished[seed]})" if seed in arm.unfinished else str(seed) for seed in missing]
    return f"{arm.letter} has no scores of seed {', '.join(each)}" if each else ""


def _seeds_line(match: Match, verdicts: Sequence[Judged]) -> str:
    letter, n = match.method.letter, len(match.seeds)
    if n == 1:
        return f"{letter}: one seed shows no spread, so how many seeds a claim of this size needs cannot be said."
    claims = [verdict for each, verdict in verdicts if each is match]
    if not claims:
        return f"{letter}: no score is defined for every seed, so there is nothing to claim."
    claim = claims[-1]
    baseline, method = match.each(lambda run: run.score(claim.task))
    spread = float((method - baseline).std(ddof=1))
    needed = seeds_needed(claim.difference, spread) or "endlessly many"
    return (
        f"{letter}: a claim of {claim.difference:+.2f} ({claim.task}) takes {needed} seeds at 80 % power, "
        f"at the standard deviation of {spread:.2f} that the differences of these {n} seeds have."
    )
