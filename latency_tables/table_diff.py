"""What differs between two latency tables."""

from dataclasses import dataclass

from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.values import Timing


@dataclass(frozen=True, slots=True)
class Change:
    """One unit that two tables time differently; `ratio` is the second's median over the first's."""

    unit: Unit
    before: Timing
    after: Timing

    @property
    def ratio(self) -> float:
        """Median of the second over that of the first."""
        return self.after.median_us / self.before.median_us


@dataclass(frozen=True, slots=True)
class TableDiff:
    """What differs between two tables.

    Attributes:
        conditions: Differing conditions in words; empty where they are alike.
        changed: Units in both with other times, largest factor first.
        added: Units of the second alone.
        removed: Units of the first alone.

    """

    conditions: str
    changed: tuple[Change, ...]
    added: tuple[Unit, ...]
    removed: tuple[Unit, ...]
