"""What the records cannot answer."""

from autoprune.errors import AutopruneError


class NotFoundError(AutopruneError):
    """No record has this id."""


class JobStateError(AutopruneError):
    """A job is not in a state in which it can do what was asked."""


def not_found(kind: str, row_id: str) -> NotFoundError:
    """Say what was not found."""
    plural = "studies" if kind == "study" else f"{kind}s"
    return NotFoundError(f"no {kind} has the id {row_id[:100]!r}; GET /v1/{plural} lists them")
