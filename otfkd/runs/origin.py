"""Where and when a run was made: what its provenance and its timings say."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Provenance(BaseModel):
    """What a run's numbers came from; what an earlier version did not write is unknown.

    Attributes:
        config_hash: names what the run computes.
        seed: its seed.
        fingerprints: content hashes of its inputs: `model`, `corpus`, `suite`, `teacher`.
        environment: revision, versions, device, threads.
        stopped: after which optimizer step of how many `trainer.patience` ended training; None where it did not.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    config_hash: str
    seed: int | None = None
    fingerprints: dict[str, str] = {}
    environment: dict[str, Any] = {}
    stopped: tuple[int, int] | None = Field(default=None, exclude_if=lambda steps: steps is None)


class Timing(BaseModel):
    """A line of timings.jsonl: `seconds` since the log was opened, which each attempt at a run does anew.

    `at` is the time of the calendar, in seconds since 1970.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    event: str
    seconds: float
    at: float = 0.0
    step: int | None = None
    peak_bytes: int | None = None
