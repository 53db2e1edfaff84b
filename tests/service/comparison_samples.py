"""Results of comparisons for tests: made up, but put together as a comparison would."""

from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.service.comparisons.comparison_result import ComparisonResult, RunView
from autoprune.service.comparisons.proposals import proposals_view
from autoprune.service.comparisons.summary import by_policy, front, milestones, pair_views, policy_view
from autoprune.service.comparisons.words import verdicts
from autoprune.service.results.curves import evaluations, seconds
from autoprune.service.results.job_result import JobResult, TrialView
from autoprune.service.results.wording import metric
from tests.service.result_samples import outcome, sample_result, scores

#: Report images.
IMAGES = 200

#: What each policy reaches on the report images, by seed.
REACHED: Mapping[str, Sequence[float]] = {
    "uniform": (0.80,),
    "random": (0.78, 0.82, 0.81),
    "sensitivity": (0.82,),
    "exact": (0.86, 0.87, 0.88),
}


def run(policy: str, seed: int | None, top1: float, *, pace: float | None = 1.0, trials: int = 4) -> RunView:
    """A search that ends at `top1`, each trial `pace` seconds after the one before."""
    tried = [
        TrialView(
            number=number,
            objective=top1 - 0.01 * (trials - number),
            cost={"macs": 200_000 - 1000 * number, "params": 10_000},
            probe=False,
            spent=float(number),
            seconds=None if pace is None else pace * number,
        )
        for number in range(1, trials + 1)
    ]
    return RunView(
        policy=policy,
        seed=seed,
        delivered=seed in (None, 0),
        trials=tried,
        evaluations=trials,
        computed=trials,
        seconds=tried[-1].seconds,
        kept={"block1.conv1": 8, "block2.conv1": 16, "block3.conv1": 24},
        cost=tried[-1].cost,
        search=scores(top1, IMAGES),
        search_final=scores(top1 + 0.01, IMAGES),
        report_pruned=scores(top1 - 0.02, IMAGES),
        report=scores(top1, IMAGES),
    )


def sample_comparison(
    reached: Mapping[str, Sequence[float]] = REACHED, *, pace: float | None = 1.0, delivered: JobResult | None = None
) -> ComparisonResult:
    """A comparison in which each policy reaches so much with each seed; policies with one value draw nothing.

    Where only one seed is given for all, policies other than uniform and sensitivity have seed 0.
    """
    seeds = max(map(len, reached.values()))
    runs = [
        run(policy, None if policy in ("uniform", "sensitivity") else seed, top1, pace=pace)
        for policy, values in reached.items()
        for seed, top1 in enumerate(values)
    ]
    delivered = delivered or sample_result().model_copy(
        update={
            "outcomes": [outcome(policy, values[0], 4, seed) for seed, (policy, values) in enumerate(reached.items())],
            "best": max(reached, key=lambda policy: reached[policy][0]),
            "report": scores(0.9, IMAGES),
        }
    )
    right = {policy: np.arange(IMAGES) < round(values[0] * IMAGES) for policy, values in reached.items()}
    sizes = dict.fromkeys(delivered.decision_groups, 48)
    proposed = {policy: {(index, 1), (9, 9)} for index, policy in enumerate(reached)}
    kept = {each.policy: each.kept for each in delivered.outcomes}
    result = ComparisonResult(
        delivered=delivered,
        seeds=list(range(seeds)),
        evaluations=4,
        runs=runs,
        policies=[
            policy_view(policy, own, metric(delivered), proposals_view(policy, proposed, kept, sizes))
            for policy, own in by_policy(runs).items()
        ],
        pairs=pair_views(runs, metric(delivered), right),
        by_evaluations=milestones(runs, evaluations, at=(2, 4)),
        by_seconds=milestones(runs, seconds),
        fronts={"macs": front(runs, "macs")},
        trials=32,
        distinct=30,
        computed=20,
        verdicts=[],
    )
    return result.model_copy(update={"verdicts": verdicts(result)})
