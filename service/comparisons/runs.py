"""The searches of a comparison: which there are, and what each works with."""

from typing import NamedTuple

from autoprune.search.policies import WITHOUT_SEED
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.pipeline.job import Job


class Run(NamedTuple):
    """One search: who, and with which seed; None for a policy that draws nothing."""

    policy: str
    seed: int | None

    def __str__(self) -> str:
        return self.policy if self.seed is None else f"{self.policy} with seed {self.seed}"

    def job(self, whole: Job) -> Job:
        """Return what this search works with, of what the `whole` comparison does."""
        return whole if self.seed is None else whole.seeded(self.seed)

    def before(self, spec: ComparisonSpec) -> list["Run"]:
        """Return the searches of the policies named before this one, with the same seed where they have one."""
        earlier = spec.policies[: spec.policies.index(self.policy)]
        return [run_of(policy, self.seed or 0) for policy in earlier]


def run_of(policy: str, seed: int) -> Run:
    """Return the search of a policy with this seed."""
    return Run(policy, None if policy in WITHOUT_SEED else seed)


def runs_of(spec: ComparisonSpec) -> list[Run]:
    """Return all searches of a comparison: seed by seed, each after those that it may learn from."""
    return list(dict.fromkeys(run_of(policy, seed) for seed in range(spec.seeds) for policy in spec.policies))
