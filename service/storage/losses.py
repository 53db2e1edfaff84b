"""Attempts at jobs that were lost, and how many of them a job may have."""

from dataclasses import dataclass
from typing import Self

from autoprune.service.storage.tables import JobRow

#: Attempts in a row, none of which got further, that ended with their service, after which a job does not run again.
#: A service ends for many reasons, and takes down jobs that have nothing to do with them.
MOST_CRASHES = 10

#: The same for attempts that ended because the job's own process died: killed, out of memory, a crash of native code.
MOST_DEATHS = 4


@dataclass(frozen=True, slots=True)
class Loss:
    """One lost attempt, and what the job's record counts from then on.

    Attributes:
        died: Whether the job's own process died; otherwise its service ended.
        crashes: Attempts that ended with their service since the job last got further.
        deaths: Attempts that ended by themselves since then.
        journaled: Evaluations in the job's journal.

    """

    died: bool
    crashes: int
    deaths: int
    journaled: int

    @classmethod
    def of(cls, row: JobRow, *, died: bool, journaled: int) -> Self:
        """Count the latest attempt at a job as lost; one that has recorded evaluations begins the count anew."""
        further = journaled > row.journaled
        crashes, deaths = (0, 0) if further else (row.crashes, row.deaths)
        return cls(died, crashes + (not died), deaths + died, max(journaled, row.journaled))

    @property
    def is_last(self) -> bool:
        """Whether the job should not be tried again."""
        return self.deaths >= MOST_DEATHS or self.crashes >= MOST_CRASHES
