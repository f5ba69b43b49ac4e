"""What sections of a config have against each other, in the words of its keys.

Each check raises a ValueError of one sentence: what, and what to do.
"""

from otfkd.config.objective import ObjectiveConfig
from otfkd.config.sections import DataConfig, Schedule, StudentConfig, TeacherConfig


def check_empty_slot(teacher: TeacherConfig, objective: ObjectiveConfig, schedule: Schedule) -> None:
    """Without a teacher nothing is distilled and nothing rotates."""
    if teacher.source != "none":
        return
    if objective.distils:
        single = objective.terms is None
        given = "objective.kd_weight is above 0" if single else "objective.terms has terms of a teacher"
        instead = "objective=simcse" if single else "leave those terms out"
        raise ValueError(f"{given} but teacher=none: give teacher=FOLDER_OR_HUB_ID or teacher=self, or {instead}")
    if schedule.trigger != "never":
        raise ValueError("schedule rotates teachers but teacher=none: give teacher=self or teacher=FOLDER_OR_HUB_ID")


def check_warm_up(teacher: TeacherConfig, schedule: Schedule) -> None:
    """The student's own first snapshot needs a step, and to begin again needs a snapshot."""
    if teacher.source != "self":
        return
    if teacher.warmup_steps is None:
        raise ValueError("teacher=self needs to know when SimCSE ends and teaching begins: add teacher.warmup_steps=N")
    if teacher.after_warmup == "reinit" and schedule.trigger == "follow":
        raise ValueError(
            "teacher.after_warmup=reinit begins the student again when a snapshot first teaches, and schedule=follow "
            "has no snapshots: set teacher.after_warmup=continue"
        )


def check_sampling(objective: ObjectiveConfig, schedule: Schedule) -> None:
    """Each teacher's space has a map of its own, which learns only while its teacher is asked."""
    if schedule.aggregate == "sample" and objective.compares_embeddings:
        kinds = " and ".join(term.what for term in objective.all_terms if term.compares_embeddings)
        named = "objective.kd" if objective.terms is None else "objective.terms"
        raise ValueError(
            f"{named}={kinds} maps the student to each teacher's space, but "
            "schedule.aggregate=sample asks one teacher at a time: take schedule.aggregate=mean"
        )


def check_precomputed(teacher: TeacherConfig, schedule: Schedule) -> None:
    """A file of embeddings stands for a teacher that stays, and for the corpus alone."""
    if not teacher.precomputed:
        return
    if teacher.source != "model" or schedule.trigger != "never":
        raise ValueError(
            "teacher.precomputed=true embeds the corpus once, which is for a teacher that stays: "
            "give teacher=FOLDER_OR_HUB_ID and schedule=never, or leave teacher.precomputed=false"
        )
    if schedule.gate is not None or schedule.aggregate == "dev_weighted":
        raise ValueError(
            "teacher.precomputed=true keeps a teacher's embeddings of the corpus alone, and schedule.gate and "
            "schedule.aggregate=dev_weighted score it on dev: leave both, or leave teacher.precomputed=false"
        )


def check_grade_scale(data: DataConfig, objective: ObjectiveConfig) -> None:
    """The benchmarks' grades are from 0 to 5; only those of a CSV need to be told."""
    graded = objective.supervised in ("cosent", "cosine_regression")
    if data.grade_scale is not None and not (graded and data.source in ("csv", "custom")):
        raise ValueError(
            f"data.grade_scale={data.grade_scale:g} is the top grade of pairs of your own, and this run reads none: "
            "leave it null, or take data=labelled with objective=cosent or cosine_regression"
        )


def check_text(data: DataConfig, objective: ObjectiveConfig) -> None:
    """Several files, a column and the like are of text without labels; a split is of the hub's."""
    if data.source != "text" and not isinstance(data.path, str | None):
        raise ValueError(f"data.path names several files, and data.source={data.source} reads one: name one")
    if objective.supervised is not None and (data.column is not None or data.unique):
        key = "data.unique=true" if data.column is None else f"data.column={data.column}"
        raise ValueError(
            f"{key} is for text, and objective={objective.supervised} reads labelled examples: leave it out"
        )
    if data.split is not None and (data.source != "hub" or data.file is not None):
        raise ValueError(f"data.split={data.split} is of a data set of the hub: take data=dataset data.repo=NAME")
    if data.subset is not None and data.split is None:
        raise ValueError(f"data.subset={data.subset} is of a data set of the hub: take data=dataset data.repo=NAME")


def check_start(student: StudentConfig, teacher: TeacherConfig) -> None:
    """A student can begin as the teacher where there is one, and only one."""
    if student.init != "teacher":
        return
    if teacher.source != "model":
        raise ValueError("student.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID")
    if len(teacher.paths) > 1:
        raise ValueError("student.init=teacher needs one teacher, not several: give teacher=FOLDER_OR_HUB_ID")


def check_chunks(chunk: int | None, objective: ObjectiveConfig) -> None:
    """The masked language loss sees the whole batch; `chunk` is None where a batch is not embedded in parts."""
    if chunk is not None and objective.predicts_tokens:
        raise ValueError(
            f"trainer.chunk={chunk} embeds a batch in parts, which the masked language loss does not: "
            f"leave trainer.chunk=null or {'objective.mlm_weight=0.0' if objective.mlm_weight else 'the term mlm out'}"
        )
