"""The gradual schedule: sparsity rises along a cubic while the network is trained (Zhu & Gupta 2017, 1710.01878)."""

from dataclasses import dataclass

from autoprune.errors import SearchError


@dataclass(frozen=True, slots=True)
class GradualSchedule:
    """Sparsity by training step: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 at t_0, t_0 + dt, ..., t_0 + n dt.

    Attributes:
        final: s_f, the share of the weights that is removed in the end; from 0 to below 1.
        begin: t_0, the step at which the share `initial` is removed; at least 0.
        interval: dt, the number of steps between two prunings.
        prunings: n, how often sparsity rises.
        initial: s_i, the share removed at `begin`; at most `final`.

    """

    final: float
    begin: int
    interval: int
    prunings: int
    initial: float = 0.0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SearchError: A value out of range.

        """
        if not 0 <= self.initial <= self.final < 1:
            raise SearchError(
                "a gradual schedule needs sparsities with 0 <= initial <= final < 1, "
                f"found {self.initial} and {self.final}"
            )
        if self.begin < 0 or self.interval < 1 or self.prunings < 1:
            raise SearchError(
                "a gradual schedule needs begin >= 0, interval >= 1 and prunings >= 1, "
                f"found {self.begin}, {self.interval} and {self.prunings}"
            )

    @property
    def end(self) -> int:
        """The step at which the final sparsity is reached."""
        return self.begin + self.prunings * self.interval

    def prunes_at(self, step: int) -> bool:
        """Tell whether weights are removed at `step`, counted in steps that are done."""
        return self.begin <= step <= self.end and (step - self.begin) % self.interval == 0

    def sparsity(self, step: int) -> float:
        """Return the share that is removed once `step` steps are done; between two prunings, that of the first."""
        if step < self.begin:
            return 0.0
        done = min((step - self.begin) // self.interval, self.prunings)
        return self.final + (self.initial - self.final) * (1 - done / self.prunings) ** 3
