"""Where a job or the work of a device is, which way it may go, and what a job runs."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a job stays in this state for ever."""
        return not _NEXT[self]

    @property
    def sources(self) -> tuple["JobState", ...]:
        """States that a job may come from."""
        return tuple(state for state, targets in _NEXT.items() if self in targets)


_NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class JobKind(StrEnum):
    """What a job runs."""

    SEARCH = "search"
    COMPARISON = "comparison"
    STUDY = "study"


class JobChange(StrEnum):
    """What happened to a job, as in its events; what leads to a state for the first time is called as that state."""

    QUEUED = "queued"
    RUNNING = "running"
    REQUEUED = "requeued"
    CANCEL_REQUESTED = "cancel_requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to a job after this."""
        return self in (JobChange.SUCCEEDED, JobChange.FAILED, JobChange.CANCELLED)


class WorkState(StrEnum):
    """Where the work of a device is."""

    QUEUED = "queued"
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"
