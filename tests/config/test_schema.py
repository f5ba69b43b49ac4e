"""What composes, what is refused and how, and what a config's hash depends on."""

import warnings
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from otfkd.base.errors import UserError
from otfkd.config.composition import compose, load_config, prepare_overrides
from otfkd.config.given import unmet
from otfkd.config.groups import conf_dir, groups, options
from otfkd.config.identity import config_hash
from otfkd.config.markers import AddedLater, HashedAs
from otfkd.config.messages import RENAMED, all_keys, present_names
from otfkd.config.schema import Config, EvaluateConfig, Root
from otfkd.config.sections import Schedule, TeacherConfig
from tests.support.config_keys import LEAVES

EXPERIMENTS = options("experiment")
GLOBAL = ("experiment", "profile", "debug")  # groups whose choices set keys of all sections
PROFILES = ["null", *options("profile")]
# They say where or how to run, not what.
MACHINE = {
    "seed", "dry_run", "fresh", "resume", "paths.data_root", "paths.runs", "paths.cache", "logger.name",
    "logger.every", "logger.project", "logger.offline", "logger.tags", "trainer.on_nonfinite", "trainer.threads",
    "trainer.devices", "trainer.fast_dev_run",
    "trainer.nodes", "data.path", "data.column", "data.subset", "data.split", "evaluation.path", "evaluation.dev",
    "evaluation.test", "evaluation.queries", "evaluation.corpus", "evaluation.qrels", "evaluation.also",
    "evaluation.tasks", "model.path", "teacher.path",
}  # fmt: skip


def refusal(*given: str) -> str:
    """The sentence with which a command line is refused."""
    with pytest.raises(UserError) as caught:
        load_config(given)
    message = str(caught.value)
    assert "\n" not in message
    return message


def flat(values: dict[str, Any], at: str = "") -> set[str]:
    """All dotted keys of a composed config, sections included."""
    found = set()
    for key, value in values.items():
        found |= {at + key} | (flat(value, f"{at}{key}.") if isinstance(value, dict) else set())
    return found


def test_discovery_finds_the_experiments() -> None:
    assert len(EXPERIMENTS) >= 5
    assert "mini" in PROFILES
    assert {"model", "data", "teacher", "objective", "schedule", "experiment", "profile"} <= set(groups())


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_at_every_profile(experiment: str, profile: str) -> None:
    sized = [] if profile == "null" else [f"profile={profile}"]
    distils = experiment != "simcse" and not experiment.startswith("finetune")
    taught = ["teacher=some/model"] if distils else []
    config = load_config([f"experiment={experiment}", *sized, *taught, "paths.data_root=/data"])
    assert config.name == experiment
    assert config.teacher.path == ("some/model" if distils else None)


@pytest.mark.parametrize(("command", "schema"), [("train", Config), ("evaluate", EvaluateConfig)])
def test_schema_and_yaml_have_the_same_keys(command: str, schema: type[Root]) -> None:
    composed = OmegaConf.to_container(compose([], command))
    assert isinstance(composed, dict)
    assert flat({str(key): value for key, value in composed.items()}) == set(all_keys(schema))


@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("trainer.max_stesp", "trainer.max_steps"),
        ("sede", "seed"),
        ("objective.group", "objective.group_p"),
        ("teacher.max_steps", "trainer.max_steps"),
        ("kd_weight", "objective.kd_weight"),
        ("modle", "model"),
    ],
)
def test_an_unknown_key_is_refused_by_the_nearest_valid_one(sign: str, key: str, meant: str) -> None:
    assert refusal(f"{sign}{key}=1") == f"unknown key '{key}': the nearest valid key is '{meant}'"


@pytest.mark.parametrize(("former", "present"), sorted(RENAMED.items()))
def test_a_key_by_its_former_name_is_refused_by_the_present_one(former: str, present: str) -> None:
    for sign in ("", "+", "++"):
        assert refusal(f"{sign}{former}=3") == f"{former} is now {present}: write {present}=3"
    for text in (f"{former}=1,2", f"~{former}"):
        meant = text.replace(former, present)
        assert refusal(text) == f"{former} is now {present}: write {meant}"
    assert refusal("schedule=every", "schedule.every=3", f"{former}=[a, 'b c']").endswith(f"write {present}=[a, 'b c']")


@pytest.mark.parametrize(("former", "present"), sorted(RENAMED.items()))
def test_a_composed_config_with_a_former_name_is_refused_too(former: str, present: str) -> None:
    """As a preset of one's own may have it."""
    composed = compose([f"+{former}=7"])
    with pytest.raises(UserError, match=f"^{former} is now {present}: write {present}=7$"):
        Config.from_hydra(composed)


def test_an_unknown_key_below_a_value_is_refused() -> None:
    assert "unknown key 'seed.deep'" in refusal("++seed.deep=1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.max_steps", "0"),
        ("trainer.max_steps", "-1"),
        ("trainer.max_steps", "1.5"),
        ("trainer.max_steps", "1e3"),
        ("trainer.max_steps", "many"),
        ("trainer.max_steps", "null"),
        ("trainer.max_steps", "true"),
        ("trainer.max_steps", "'7'"),
        ("trainer.accumulate", "0"),
        ("optimizer.lr", "0"),
        ("optimizer.lr", "-1e-5"),
        ("optimizer.lr", "nan"),
        ("optimizer.lr", "inf"),
        ("optimizer.lr", "1e999"),
        ("optimizer.lr", "null"),
        ("objective.temperature", "0.0"),
        ("objective.kd_weight", "-0.1"),
        ("objective.group_p", "0"),
        ("objective.group_p", "1.0"),
        ("objective.kd", "hinge"),
        ("data.batch_size", "1"),
        ("data.max_length", "2"),
        ("schedule.every", "0"),
        ("schedule.keep_snapshots", "0"),
        ("schedule.at", "3"),
        ("seed", "-1"),
        ("seed", str(2**32)),
        ("seed", "null"),
        ("fresh", "maybe"),
        ("resume", "always"),
        ("paths.runs", "null"),
        ("model.pooler", "max"),
        ("precision.compute", "float16"),
    ],
)
def test_an_invalid_value_is_refused_by_key_and_value(key: str, value: str) -> None:
    shown = {"1e3": "1000.0", "1e999": "inf", "-1e-5": "-1e-05", "'7'": "7"}.get(value, value)
    assert refusal(f"{key}={value}").startswith(f"{key}={shown} is not valid: ")


def test_an_invalid_item_of_a_list_is_refused_by_its_place() -> None:
    assert refusal("schedule=at", "schedule.at=[5,0]").startswith("schedule.at.1=0 is not valid")


@pytest.mark.parametrize("key", ["trainer.max_steps", "trainer.threads", "data.batch_size"])
def test_an_impossible_size_is_refused(key: str) -> None:
    assert refusal(f"{key}={10**26}").startswith(f"{key}={10**26} is not valid")


@pytest.mark.parametrize(
    ("choice", "key"),
    [
        ("data=text", "data.path"),
        ("data=labelled", "data.path"),
        ("data=custom", "data.path"),
        ("objective=custom", "objective.fn"),
        ("model=custom", "model.path"),
        ("teacher=custom", "teacher.path"),
    ],
)
def test_a_choice_that_needs_a_value_asks_for_it(choice: str, key: str) -> None:
    assert f"{key} must be given" in refusal(choice)


def test_a_missing_value_is_asked_for() -> None:
    assert refusal("name=???") == "name must be given: add name=VALUE to the command"


@pytest.mark.parametrize("group", ["objective", "experiment", "data", "trainer"])
def test_an_unknown_choice_lists_the_choices(group: str) -> None:
    message = refusal(f"{group}=nonesuch")
    assert message == f"{group}=nonesuch is not a choice: take one of {', '.join(options(group))}"


@pytest.mark.parametrize("group", ["schedule", "objective", "teacher"])
def test_a_groups_base_shows_all_its_keys_and_is_no_choice(group: str) -> None:
    base = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / "base.yaml"))
    assert isinstance(base, dict)
    own = {key for key in all_keys(Config) if key.startswith(f"{group}.")}
    assert flat({str(key): value for key, value in base.items()}, f"{group}.") == own
    assert "base" not in options(group)


def test_python_and_yaml_have_the_same_default_schedule() -> None:
    base = OmegaConf.to_container(OmegaConf.load(conf_dir() / "schedule" / "base.yaml"))
    assert Schedule().model_dump() == base
    assert Schedule(trigger="every", every=25) == load_config(["experiment=otfkd", "schedule.every=25"]).schedule


@pytest.mark.parametrize("group", ["schedule", "objective"])
def test_a_groups_base_is_refused_as_any_unknown_choice(group: str) -> None:
    assert refusal(f"{group}=base") == f"{group}=base is not a choice: take one of {', '.join(options(group))}"


def test_a_teacher_called_base_is_a_folder_or_hub_id_as_any_other() -> None:
    assert load_config(["objective=distill", "teacher=base"]).teacher.path == "base"


@pytest.mark.parametrize("group", ["teacher", "trainer", "experiment"])
def test_a_group_without_a_choice_is_the_users_error(group: str) -> None:
    assert group in refusal(f"{group}=null")


@pytest.mark.parametrize("text", ["+seed=1", "model=a,b", "~trainer.threads", "hydra.nonesuch=1"])
def test_what_hydra_refuses_is_the_users_error(text: str) -> None:
    assert refusal(text)


def test_a_broken_interpolation_is_refused() -> None:
    assert refusal("name='${data.nonesuch}'").startswith("the config does not resolve: ")


@pytest.mark.parametrize("text", ["seed", "seed=[1", "model='open"])
def test_what_is_no_override_is_refused(text: str) -> None:
    assert refusal(text).startswith(f"'{text}' is not an override")


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/b", "/tmp/x"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    assert refusal(f"name='{name}'").startswith("name=")


@pytest.mark.parametrize("group", ["model", "teacher"])
@pytest.mark.parametrize(
    "path",
    [
        "org/name",
        "/abs/folder",
        "./rel",
        "a folder",
        "a,b",
        "a=b",
        'say "x"',
        "it's",
        "{a:1}",
        "[x]",
        "ü é",
        "back\\slash",
        "tail\\",
    ],
)
def test_a_model_path_survives_as_it_was_written(group: str, path: str) -> None:
    escaped = path.replace('"', '\\"') + "\\" * path.endswith("\\")  # as Hydra's grammar asks
    config = load_config([f'{group}="{escaped}"', *(["objective=distill"] if group == "teacher" else [])])
    assert getattr(config, group).path == path


@pytest.mark.parametrize("path", ["org/name", "/abs/folder", "./rel/folder", "../up", "runs/simcse/0123456789/s0"])
def test_plain_paths_need_no_quotes(path: str) -> None:
    assert load_config([f"model={path}"]).model.path == path


def test_a_named_choice_is_not_taken_for_a_path() -> None:
    assert load_config(["model=bert_base"]).model.path == "google-bert/bert-base-uncased"
    assert prepare_overrides(["model=bert_base"], Config) == ["model=bert_base"]


def test_a_model_by_path_keeps_its_own_pooler_unless_told() -> None:
    assert load_config(["model=org/name"]).model.pooler is None
    assert load_config(["model=org/name", "model.pooler=mean"]).model.pooler == "mean"


@pytest.mark.parametrize(
    "key",
    [
        "data.path", "evaluation.path", "evaluation.dev", "evaluation.test", "paths.runs", "paths.cache",
        "paths.data_root",
    ],
)  # fmt: skip
def test_relative_paths_mean_the_working_folder(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section, name = key.split(".")
    readers = {"data.path": "data=text", "evaluation.path": "evaluation=sts"}
    chosen = readers.get(key, "evaluation=pairs" if section == "evaluation" else "evaluation=mini")
    config = load_config([f"{key}=sub/x", chosen])
    assert getattr(getattr(config, section), name) == str(tmp_path / "sub" / "x")


def test_a_tilde_means_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_config(["data=text", "data.path='~/corpus.txt'"]).data.path == "/home/someone/corpus.txt"


def test_the_environment_names_data_and_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTFKD_DATA", "/d")
    monkeypatch.setenv("OTFKD_CACHE", "/c")
    config = load_config([])
    assert (config.paths.data_root, config.paths.cache) == ("/d", "/c")


Part = TypeVar("Part", bound=BaseModel)


def changed(node: Part, key: str) -> Part:
    """A config, or a section of one, with another value at one key."""
    name, _, rest = key.partition(".")
    return node.model_copy(update={name: changed(getattr(node, name), rest) if rest else "other"})


def hashed(config: Config, **fingerprints: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "other" has the wrong type in most places
        return config_hash(config, fingerprints)


@pytest.fixture(scope="module")
def default() -> Config:
    return load_config([])


@pytest.mark.parametrize("key", LEAVES)
def test_the_hash_depends_on_every_key_but_the_machines(default: Config, key: str) -> None:
    assert (hashed(changed(default, key)) == hashed(default)) == (key in MACHINE)


def test_the_machines_keys_exist() -> None:
    assert set(LEAVES) > MACHINE


def test_the_hash_depends_on_what_is_read() -> None:
    config = load_config([])
    seen = {hashed(config), hashed(config, model="1"), hashed(config, model="2"), hashed(config, corpus="1")}
    assert len(seen) == 4
    assert hashed(config, a="1", b="2") == hashed(config, b="2", a="1")


def test_a_key_that_came_later_leaves_other_runs_their_names(default: Config) -> None:
    """The hash is the default run's from before there were such keys."""
    assert {key for key in LEAVES if AddedLater() in field_of(default, key).metadata} == {
        "teacher.precomputed",
        "objective.terms",
        "objective.dims",
        "objective.fn",
        "data.grade_scale",
        "data.unique",
        "trainer.callbacks",
        "trainer.overfit_batches",
        "trainer.patience",
        "evaluation.extra",
        "evaluation.select",
        "model.dropout",
        "model.attention_dropout",
    }
    assert hashed(default) == "7e14559728"
    stored = default.model_dump()
    del stored["teacher"]["precomputed"], stored["evaluation"]["extra"]
    del stored["objective"]["terms"], stored["objective"]["dims"], stored["objective"]["fn"]
    del stored["model"]["dropout"], stored["model"]["attention_dropout"]
    for name in ("callbacks", "overfit_batches", "fast_dev_run", "patience"):
        del stored["trainer"][name]
    for name in ("grade_scale", "column", "subset", "split", "unique"):
        del stored["data"][name]
    assert Config.model_validate(stored) == default


def field_of(node: BaseModel, key: str) -> FieldInfo:
    name, _, rest = key.partition(".")
    return field_of(getattr(node, name), rest) if rest else type(node).model_fields[name]


def test_a_renamed_key_is_hashed_by_its_former_name_and_read_by_it(default: Config) -> None:
    marks = {key: mark for key in LEAVES for mark in field_of(default, key).metadata if isinstance(mark, HashedAs)}
    assert {f"{key.rpartition('.')[0]}.{mark.name}": key for key, mark in marks.items()} == RENAMED
    stored = default.model_dump()
    for former, present in RENAMED.items():
        section, _, name = present.partition(".")
        stored[section][former.partition(".")[2]] = stored[section].pop(name)
    assert present_names(stored) == default.model_dump()


# Of published rows and finished runs: these never change.
NAMES = {
    "experiment=simcse": "7e14559728",
    "experiment=otfkd": "991f13cb66",
    "experiment=otfkd_average": "05925fbf71",
    "experiment=otfkd_average schedule.average_last=5": "efb46bf1c1",
    "experiment=otfkd_pool": "3b2a5543f3",
    "experiment=otfkd_pool schedule.pool_size=7": "618ab52b9c",
    "experiment=otfkd schedule.keep_snapshots=9": "3411c6c43c",
    "experiment=mean_teacher": "6dfaae4f8d",
    "experiment=distillcse teacher=some/model": "353d3d367f",
    "experiment=distillcse_rounds teacher=some/model": "2d98963c6e",
    "experiment=rankcse": "f26eb21b7e",
    "experiment=snapshot_distillation": "c1fe0569ff",
    "experiment=finetune_stsb paths.data_root=/data": "4b74070e55",
    "objective=distill teacher=some/model teacher.precomputed=true": "993ca87c91",
}


@pytest.mark.parametrize("command", NAMES)
def test_runs_keep_their_names(command: str) -> None:
    assert hashed(load_config(command.split())) == NAMES[command]


class WithDefault(TeacherConfig):
    more: bool = False


class WithMarker(TeacherConfig):
    more: Annotated[bool, AddedLater()] = False


def test_only_a_marked_key_stays_out_of_the_hash_and_only_while_it_has_its_default(default: Config) -> None:
    def grown(schema: type[TeacherConfig], **given: bool) -> str:
        teacher = schema.model_validate({**default.teacher.model_dump(), **given})
        return hashed(default.model_copy(update={"teacher": teacher}))

    assert grown(WithDefault) != hashed(default)
    assert grown(WithMarker) == grown(WithMarker, more=False) == hashed(default)
    assert grown(WithMarker, more=True) == grown(WithDefault, more=True) != grown(WithDefault)


def test_the_hash_is_ten_hex_digits() -> None:
    digits = hashed(load_config([]))
    assert len(digits) == 10
    assert set(digits) <= set("0123456789abcdef")


def test_the_order_of_overrides_does_not_matter() -> None:
    given = ["experiment=otfkd", "profile=mini", "trainer.max_steps=40", "schedule.every=10", "model=org/x"]
    assert len({hashed(load_config(order)) for order in (given, given[::-1], given[2:] + given[:2])}) == 1


def test_an_override_outdoes_experiment_and_profile() -> None:
    config = load_config(["trainer.max_steps=7", "schedule.every=3", "experiment=otfkd", "profile=mini"])
    assert (config.trainer.max_steps, config.schedule.every) == (7, 3)


def test_derived_properties_follow_their_keys() -> None:
    sizes = ["data.batch_size=10", "trainer.accumulate=3", "trainer.max_steps=5"]
    config = load_config([*sizes, "objective=distill", "teacher=minilm"])
    assert (config.negatives_per_anchor, config.total_batches, config.distils) == (9, 15, True)
    assert not load_config([]).distils


@pytest.mark.parametrize("name", ["negatives_per_anchor", "total_batches", "distils"])
def test_derived_properties_cannot_be_set(name: str) -> None:
    with pytest.raises((AttributeError, ValidationError)):
        setattr(load_config([]), name, 1)
    assert "unknown key" in refusal(f"{name}=1")


def test_a_config_cannot_be_altered() -> None:
    config = load_config([])
    with pytest.raises(ValidationError, match="frozen"):
        config.trainer.max_steps = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3


def test_experiments_and_profiles_choose_only_what_exists() -> None:
    named = [
        line for path in conf_dir().rglob("*.yaml") for line in path.read_text().splitlines() if "override /" in line
    ]
    assert named
    for line in named:
        group, choice = line.split("override /")[1].split(": ")
        assert (conf_dir() / group / f"{choice}.yaml").is_file(), line


TAUGHT = ("teacher=minilm", "objective=distill")
# What a choice needs beside it to compose; a group stands for the rest of its choices.
BESIDE = {
    "schedule=never": (),
    "schedule=at": (*TAUGHT, "schedule.at=[2,4]"),
    "schedule": TAUGHT,
    "data=text": ("data.path=text.txt",),
    "data=custom": ("data.path=package.module:Class",),
    "data=dataset": ("data.repo=org/name",),
    "data=labelled": ("data.path=pairs.csv",),
    "teacher=custom": ("teacher.path=folder", "objective=distill"),
    "teacher=minilm": TAUGHT,
    "teacher=self": ("teacher.warmup_steps=3", "objective=distill"),
    "model=custom": ("model.path=folder",),
    "objective=custom": ("objective.fn=package.module:function",),
    **{f"objective={one}": TAUGHT[:1] for one in options("objective") if one.startswith(("distill", "rankcse"))},
    **{f"experiment={one}": TAUGHT[:1] for one in EXPERIMENTS if one.startswith("distill")},
    "profile=small": ("paths.data_root=folder",),
}
EVERY_CHOICE = [f"{group}={choice}" for group in groups() if group != "hydra" for choice in options(group)]


@pytest.mark.parametrize("choice", EVERY_CHOICE)
def test_with_every_choice_a_key_is_hashed_or_the_machines_or_refused(choice: str) -> None:
    group = choice.partition("=")[0]
    config = load_config([choice, *BESIDE.get(choice, BESIDE.get(group, ()))])
    name = hashed(config)
    lost = [
        key
        for key in LEAVES
        if unmet(config, key) is None and (hashed(changed(config, key)) == name) != (key in MACHINE)
    ]
    assert lost == []
