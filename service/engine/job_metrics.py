"""How many jobs this service has run since it started, and how long they took, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow

_MINUTE, _HOUR = 60, 3600

DURATION_BUCKETS_S = (1, 5, 15, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR)


class JobMetrics:
    """Counts of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        self._claims = Counter(
            "autoprune_job_claims", "Attempts at jobs that this service has begun.", registry=self.registry
        )
        self._durations = Histogram(
            "autoprune_job_duration_seconds",
            "Time from a job's first start to its end, of jobs that this service has run.",
            ["kind", "state"],
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )

    def claimed(self) -> None:
        """Count an attempt."""
        self._claims.inc()

    def attempted(self, row: JobRow) -> None:
        """Count a job of which an attempt is over, if that was its end."""
        if JobState(row.state).is_final and row.started_at is not None and row.finished_at is not None:
            duration = row.finished_at - row.started_at
            self._durations.labels(kind=row.kind, state=row.state).observe(duration.total_seconds())
