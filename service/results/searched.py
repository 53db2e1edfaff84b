"""What figures draw: searches, whether their job is done (:class:`JobResult`) or on its way (:class:`LiveSearch`)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from autoprune.service.results.job_result import GroupView, ScoresView, TrialView


class SearchedPolicy(Protocol):
    """One policy's search; attributes as of :class:`autoprune.service.results.job_result.PolicyOutcome`."""

    @property
    def policy(self) -> str: ...  # noqa: D102 - as of the class named above

    @property
    def trials(self) -> Sequence[TrialView]: ...  # noqa: D102

    @property
    def kept(self) -> Mapping[str, int]: ...  # noqa: D102

    @property
    def front(self) -> Sequence[int]: ...  # noqa: D102


class Searched(Protocol):
    """The searches of a job; attributes as of :class:`autoprune.service.results.job_result.JobResult`."""

    @property
    def cost(self) -> Mapping[str, int]: ...  # noqa: D102

    @property
    def limits(self) -> Mapping[str, int]: ...  # noqa: D102

    @property
    def groups(self) -> Sequence[GroupView]: ...  # noqa: D102

    @property
    def decision_groups(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def search(self) -> ScoresView: ...  # noqa: D102

    @property
    def outcomes(self) -> Sequence[SearchedPolicy]: ...  # noqa: D102
