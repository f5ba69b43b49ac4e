"""Builds a W&B workspace of otfkd's runs: python experiments/dashboard.py ENTITY [--project otfkd]."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

SCORE = "test/average"


def workspace(entity: str, project: str) -> "ws.Workspace":
    """The workspace; seeds of one config are a group, and lines and bars are its mean."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.workspaces as ws

    sections = {"Interval": _interval(), "Generations": _generations(), "Cost": _cost()}
    return ws.Workspace(
        entity=entity,
        project=project,
        name="otfkd",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(groupby=[expr.Metric("Group")]),
    )


def _interval() -> "list[wr.ScatterPlot | wr.BarPlot]":
    """Is it better to rotate more often?"""
    import wandb_workspaces.reports.v2 as wr

    every = wr.Config("schedule.every")
    return [
        wr.ScatterPlot(title="Score by interval", x=every, y=wr.SummaryMetric(SCORE), log_x=True),
        wr.BarPlot(
            title="Score by interval, mean over runs", metrics=[SCORE], orientation="v", groupby=every,
            groupby_aggfunc="mean", groupby_rangefunc="stddev",
        ),
    ]  # fmt: skip


def _generations() -> "list[wr.LinePlot]":
    """What does each teacher do to the student?"""
    import wandb_workspaces.reports.v2 as wr

    def over_steps(title: str, *names: str) -> wr.LinePlot:
        return wr.LinePlot(title=title, x="Step", y=list(names))

    def over_generations(title: str, *names: str) -> wr.LinePlot:
        return wr.LinePlot(title=title, x="rotation/generation", y=[f"rotation/{name}" for name in names])

    return [
        over_steps("Dev score", "dev"),
        over_steps("Generation of the teacher", "generation"),
        over_steps("Losses", "info_nce", "kd"),
        over_generations("The new teacher's dev score", "dev"),
        over_generations("Agreement with the teacher", "agreement_before", "agreement_after"),
        over_generations("Gradient of the distillation", "kd_gradient_before", "kd_gradient_after"),
        over_generations("Learning rate", "lr"),
    ]


def _cost() -> "list[wr.ScatterPlot | wr.BarPlot]":
    """What does a point cost?"""
    import wandb_workspaces.reports.v2 as wr

    score = wr.SummaryMetric(SCORE)
    return [
        wr.ScatterPlot(title="Score by encoder passes", x=wr.SummaryMetric("cost/forwards"), y=score),
        wr.ScatterPlot(title="Score by seconds", x=wr.SummaryMetric("cost/seconds"), y=score),
        wr.BarPlot(title="Peak memory, bytes", metrics=["cost/peak_bytes"]),
    ]


def main() -> None:
    from otfkd.cli.common import exit_with

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("--project", default="otfkd", help="what logger.project is (default: otfkd)")
    arguments = parser.parse_args()
    exit_with(lambda: _save(arguments.entity, arguments.project))


def _save(entity: str, project: str) -> None:
    from importlib.util import find_spec

    from otfkd.base.errors import UserError

    if find_spec("wandb_workspaces") is None:
        raise UserError("the dashboard needs wandb-workspaces: run pip install 'otfkd[dashboard]'")
    made = workspace(entity, project)
    made.save()
    sys.stdout.write(f"{made.url}\n")


if __name__ == "__main__":
    main()
