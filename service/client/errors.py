"""What goes wrong between a client and its service."""

from autoprune.errors import AutopruneError

#: Types of errors that the client finds out itself; all others are the service's problem types.
UNREACHABLE, NO_SERVICE, TIMEOUT = "unreachable", "no-service", "timeout"
CANCELLED, NOT_FINISHED, DAMAGED, NO_NETWORK = "job-cancelled", "job-not-finished", "damaged-download", "no-network"

_TRANSIENT_STATUS = (429, 502, 503, 504)


class ClientError(AutopruneError):
    """The service refused a request, a job failed, or no service answers.

    Attributes:
        type: Kind of error, as the last part of the service's problem types (``infeasible-budget-error``), or of the
            reason why a job failed; one of the types above where the client found it out itself.
        detail: What was expected, what was found, what to do.
        status: HTTP status of the answer; None where it was no answer that failed.

    """

    def __init__(self, detail: str, *, type: str, status: int | None = None) -> None:
        """Describe one error."""
        super().__init__(detail)
        self.type, self.detail, self.status = type, detail, status

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.type == UNREACHABLE or self.status in _TRANSIENT_STATUS
