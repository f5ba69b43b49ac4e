"""The list `objective.terms`: what it may say, and what is refused in one sentence that names the key."""

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.identity import config_hash

TAUGHT = ("experiment=distill_static", "teacher=minilm")
TWO = "objective.terms=[{what: ce}, {what: cosine, weight: 0.5}]"
REFUSED = {
    "[]": "objective.terms=[] has no term: write one, as [{what: ce}], or leave it null",
    "[{weight: 2}]": "objective.terms.0 says not what it is: write it as {what: ce}",
    "[{what: ce}, {what: kl, wieght: 2}]": "unknown key 'objective.terms.1.wieght': the nearest valid key is "
    "'objective.terms.1.weight'",
    "[{what: ce, weight: 0}]": "objective.terms.0.weight=0 is not valid: it must be greater than 0",
    "[{what: cross}]": "objective.terms.0.what=cross is not valid: it must be ce, kl, js, listmle, rank_margin, mse, "
    "cosine, consistency or mlm, or the import path of a function of your own, package.module:name",
    "[{what: ce}, {what: ce}]": "objective.terms has two terms called ce: give one of them a name, as name: other",
    "[{what: mse, temperature_student: 1}]": "the term mse of objective.terms: temperature_student=1.0 has no meaning "
    "with what=mse: leave it out, or take what=ce, kl, js or listmle",
    "[{what: ce, group_p: 0.1, group_size: 3}]": "the term ce of objective.terms: group_p and group_size exclude each "
    "other: leave one of them out",
    "[{what: ce, ramp: first}]": "the term ce of objective.terms: ramp and ramp_steps need each other: give both, or "
    "leave both out",
    "[{what: ce, ramp_shape: linear}]": "the term ce of objective.terms: ramp_shape=linear shapes a ramp: give ramp or "
    "fade_steps too",
    "[{what: mlm, ramp: rotation, ramp_steps: 2}]": "the term mlm of objective.terms: ramp=rotation counts from a "
    "teacher, and what=mlm has none: take ramp=run",
}  # fmt: skip


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        load_config(list(overrides))
    return str(refused.value)


@pytest.mark.parametrize("terms", REFUSED)
def test_a_term_that_makes_no_sense_is_refused(terms: str) -> None:
    assert refusal(*TAUGHT, f"objective.terms={terms}") == REFUSED[terms]


@pytest.mark.parametrize("given", ["objective.kd=kl", "objective.kd_weight=2", "objective.kd_ramp_shape=sigmoid"])
def test_several_terms_and_the_keys_of_one_are_not_given_together(given: str) -> None:
    assert refusal(*TAUGHT, TWO, given) == (
        f"{given} is not read with objective.terms=[{{what:ce}},{{what:cosine,weight:0.5}}]: leave it out, or take "
        "objective.terms=null"
    )


def test_the_same_term_is_not_given_twice() -> None:
    assert refusal(*TAUGHT, "objective.terms=[{what: mlm}]", "objective.mlm_weight=0.1") == (
        "objective.mlm_weight=0.1 and a term mlm of objective.terms are the same: leave one of them out"
    )


def test_a_key_is_lent_to_terms_that_read_it_and_leave_it_out() -> None:
    key = "objective.temperature_teacher=0.3"
    lent = load_config([*TAUGHT, TWO, key]).objective
    assert [term.temperature_teacher for term in lent.all_terms if term.what == "ce"] == [0.3]
    for terms in ("[{what: cosine}]", "[{what: ce, temperature_teacher: 0.2}]"):
        told = refusal(*TAUGHT, f"objective.terms={terms}", key)
        assert told.startswith(f"{key} is not read with objective.terms=[{{what:")
        assert told.endswith(": leave it out, or take a term that reads it")


def test_terms_of_a_teacher_need_one_and_others_need_none() -> None:
    assert refusal("experiment=simcse", "objective.terms=[{what: ce}]") == (
        "objective.terms has terms of a teacher but teacher=none: give teacher=FOLDER_OR_HUB_ID or teacher=self, or "
        "leave those terms out"
    )
    assert not load_config(["experiment=simcse", "objective.terms=[{what: mlm, weight: 0.1}]"]).distils
    assert "teacher=minilm is not read with objective.terms=" in refusal(
        "experiment=simcse", "objective.terms=[{what: mlm}]", "teacher=minilm"
    )


def test_maps_to_several_teachers_spaces_and_one_at_a_time_exclude_each_other() -> None:
    told = refusal(*TAUGHT, TWO, "schedule.aggregate=sample", "schedule=every", "schedule.every=2",
                   "schedule.retain=pool")  # fmt: skip
    assert told.startswith("objective.terms=cosine maps the student to each teacher's space")


def test_the_name_of_a_run_depends_on_its_terms_and_not_on_what_is_said_of_them() -> None:
    def hashed(*more: str) -> str:
        return config_hash(load_config([*TAUGHT, *more]), {})

    plain, two = hashed(), hashed(TWO)
    assert plain != two
    assert two == "6f178737a7"  # keys that a term may have later leave runs their names
    assert two == hashed("objective.terms=[{what: ce, weight: 1.0, margin: null}, {weight: 0.5, what: cosine}]")
    assert two != hashed("objective.terms=[{what: cosine, weight: 0.5}, {what: ce}]") != plain
