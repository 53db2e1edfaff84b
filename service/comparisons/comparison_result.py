"""What a finished comparison says: one JSON document that the command line, the page and the report all read."""

from autoprune.service.results.job_result import JobResult, ScoresView, TrialView, Value

FORMAT = "autoprune-comparison/1"

#: Its file in the folder of the comparison.
FILE = "comparison.json"


class IntervalView(Value):
    """A mean with Student's 95% interval over `n` seeds; low and high are None for a single one."""

    mean: float
    low: float | None
    high: float | None
    n: int


class RunView(Value):
    """One search of a comparison, and what became of its winner.

    Attributes:
        seed: Of the search; None where the policy draws nothing.
        delivered: Whether this is the run of its policy that was exported: the best on the search split.
        trials: What was asked for, in order.
        evaluations: What it spent, in evaluations on all search images.
        computed: Evaluations that had to be computed for it now; all others were in the journal.
        seconds: What it took, had it run alone in one process; None where a journal does not say.
        kept: Units kept per decision group, by group name.
        cost: Cost of the winner as the search knows it.
        search: The winner on the search split, as the search saw it.
        search_final: The same after refit and fine-tuning, where these helped or were asked for.
        report_pruned: On the report split, before fine-tuning.
        report: On the report split, in the end.

    """

    policy: str
    seed: int | None
    delivered: bool
    trials: list[TrialView]
    evaluations: int
    computed: int
    seconds: float | None
    kept: dict[str, int]
    cost: dict[str, int]
    search: ScoresView
    search_final: ScoresView
    report_pruned: ScoresView
    report: ScoresView


class GroupDifference(Value):
    """A group that a policy treats otherwise than the others do: the shares of its units that are kept."""

    group: str
    kept: float
    others: float


class ProposalsView(Value):
    """What a policy proposed within the budget, over all its seeds.

    Attributes:
        distinct: Different candidates.
        alone: How many of them no other policy proposed.
        groups: Where its delivered network differs most from the mean of the others'.

    """

    distinct: int
    alone: int
    groups: list[GroupDifference]


class PolicyView(Value):
    """One policy over its seeds; all scores are the figure that networks are compared by.

    Attributes:
        policy: Its name.
        seeds: Of its searches; none where it draws nothing and searched once.
        search: Best of the search split within the evaluations, as the searches saw it.
        search_final: The same winners after refit and fine-tuning.
        report_pruned: On the report split, before fine-tuning.
        report: On the report split, in the end.
        trials: Mean number of trials.
        seconds: What a search took; None where a journal does not say.
        proposals: What it proposed.

    """

    policy: str
    seeds: list[int]
    search: IntervalView
    search_final: IntervalView
    report_pruned: IntervalView
    report: IntervalView
    trials: float
    seconds: IntervalView | None
    proposals: ProposalsView


class PairView(Value):
    """One policy against another on the report split.

    Attributes:
        first: One policy.
        second: The other one.
        difference: Of the first less the second, over the seeds that both have; a policy that draws nothing is the
            same for every seed.
        t_p: Of the paired t-test over seeds; None with one seed, or where all differ alike.
        wilcoxon_p: Of Wilcoxon's signed-rank test over seeds; None with fewer than six that differ.
        only_first: Report images that only the delivered network of the first gets right.
        only_second: The same of the second.
        mcnemar_p: Of McNemar's exact test on these images.

    """

    first: str
    second: str
    difference: IntervalView
    t_p: float | None
    wilcoxon_p: float | None
    only_first: int
    only_second: int
    mcnemar_p: float

    def turned(self) -> "PairView":
        """Return the same pair the other way round."""
        was = self.difference
        low, high = (None if end is None else -end for end in (was.high, was.low))
        return self.model_copy(
            update={
                "first": self.second,
                "second": self.first,
                "difference": IntervalView(mean=-was.mean, low=low, high=high, n=was.n),
                "only_first": self.only_second,
                "only_second": self.only_first,
            }
        )


class MilestoneView(Value):
    """Who leads at one point of all searches.

    Attributes:
        at: So many evaluations, or seconds.
        ends: Policies whose searches end here, in the mean over their seeds.
        best: Mean over seeds of the best so far on the search split; None before every seed has a candidate.
        leaders: Policies with the highest of these.

    """

    at: float
    ends: list[str]
    best: dict[str, float | None]
    leaders: list[str]


class FrontPoint(Value):
    """A trial that no other one beats in both cost and score."""

    policy: str
    seed: int | None
    trial: int
    cost: int
    objective: float


class ComparisonResult(Value):
    """A whole comparison.

    Attributes:
        delivered: The best run of each policy, chosen on the search split, as a job would show it.
        seeds: Of the searches.
        evaluations: What each search might spend.
        runs: All searches.
        policies: Each policy over its seeds.
        pairs: Each policy against each that comes before it.
        by_evaluations: Who leads after so many evaluations.
        by_seconds: Who leads after so many seconds; none where a journal does not say how long evaluations took.
        fronts: Cost against score over all trials that could win, by quantity of the budget.
        trials: What was asked for, over all searches.
        distinct: Different evaluations that these rest on.
        computed: Evaluations that were computed now; the rest was in the journal.
        verdicts: What this shows, in words.

    """

    format: str = FORMAT
    delivered: JobResult
    seeds: list[int]
    evaluations: int
    runs: list[RunView]
    policies: list[PolicyView]
    pairs: list[PairView]
    by_evaluations: list[MilestoneView]
    by_seconds: list[MilestoneView]
    fronts: dict[str, list[FrontPoint]]
    trials: int
    distinct: int
    computed: int
    verdicts: list[str]

    def policy(self, name: str) -> PolicyView | None:
        """Return one policy over its seeds, or None if it has no runs."""
        return next((policy for policy in self.policies if policy.policy == name), None)

    def pair(self, first: str, second: str) -> PairView | None:
        """Return `first` against `second`, or None where there are no runs to hold against each other."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair if pair.first == first else pair.turned()
        return None
