"""Overrides of the runs that several tests make variants of."""

# For the fixture `command`, which puts a teacher in.
GIVEN = ("teacher={a}", "teacher.pooler=mean")
OTFKD = ("experiment=otfkd", "schedule.every=4")
