"""The W&B workspace's specification, against the names a run logs."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import otfkd
from otfkd.config.differences import flat
from otfkd.config.schema import Config
from otfkd.training.train import train
from tests.support.logged import points_of
from tests.support.models import make_model

FILE = Path(otfkd.__file__).parents[1] / "experiments" / "dashboard.py"


@pytest.fixture(scope="module")
def dashboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels(specification: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for section in specification["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            yield section["name"], panel


def named(value: Any) -> Iterator[str]:
    """Every metric and config key that a panel's config names, as W&B writes them."""
    axes = {"xAxis", "yAxis", "metrics", "groupBy"}
    for key, inside in value.items():
        if key in axes and inside not in (None, "_step"):
            yield from inside if isinstance(inside, list) else [inside]


def test_the_workspace_shows_intervals_generations_and_cost(dashboard: ModuleType) -> None:
    pytest.importorskip("wandb_workspaces")
    made = dashboard.workspace("lab", "otfkd")
    specification = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    found: dict[str, list[str]] = {}
    for section, panel in panels(specification):
        found.setdefault(section, []).append(panel["config"]["chartTitle"])
    assert (made.entity, made.project) == ("lab", "otfkd")
    assert list(found) == ["Interval", "Generations", "Cost"]
    assert "Dev score" in found["Generations"]
    (runs,) = specification["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group"]


def test_every_name_in_a_panel_is_one_that_a_run_logs(
    dashboard: ModuleType, configure: Callable[..., Config], tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces")
    teacher = make_model(tmp_path / "teacher", seed=1)
    config = configure("experiment=otfkd", "schedule.every=3", f"teacher={teacher}", "teacher.pooler=cls")
    logged = {name for values in points_of(train(config).folder).values() for name in values}
    settings = flat(config.model_dump(mode="json"))
    model = dashboard.workspace("lab", "otfkd")._to_model()
    names = set()
    for _, panel in panels(json.loads(model.spec.model_dump_json(by_alias=True))):
        names |= set(named(panel["config"]))
    plain = {re.sub(r"^summary:", "", name) for name in names}
    keys = {re.sub(r"^config:|\.value", "", name) for name in names if ".value" in name}
    assert keys == {"schedule.every"} <= settings.keys()
    assert {name for name in plain if ".value" not in name} <= logged
    assert {"test/average", "dev", "rotation/generation", "cost/forwards"} <= plain


def test_a_missing_package_is_named(
    dashboard: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["dashboard.py", "lab"])
    with pytest.raises(SystemExit) as caught:
        dashboard.main()
    assert caught.value.code == 2
    assert "pip install 'otfkd[dashboard]'" in capsys.readouterr().err
