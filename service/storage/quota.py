"""How much of the queue one caller may fill."""

from dataclasses import dataclass

from autoprune.errors import AutopruneError


class QuotaError(AutopruneError):
    """A caller has as many jobs queued as the service allows."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The part of the queue that one caller may fill.

    Attributes:
        key_id: API key that the jobs count for; None for all that come without one.
        queued_jobs: Most jobs that wait at a time; None for any number.

    """

    key_id: str | None = None
    queued_jobs: int | None = None

    def check(self, queued: int) -> None:
        """Refuse one more job.

        Raises:
            QuotaError: As many as allowed are `queued` already.

        """
        if self.queued_jobs is not None and queued >= self.queued_jobs:
            whose = "" if self.key_id is None else f" of key {self.key_id}"
            raise QuotaError(
                f"expected fewer than {self.queued_jobs:,} queued jobs{whose}, found {queued:,}; wait until some have "
                "run, or cancel some"
            )


#: For callers that may queue what they like.
NO_QUOTA = Quota()
