"""What a job leaves for later ones, and how one goes on from an earlier one: nothing known is evaluated again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autoprune.errors import SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.allocation import Allocation
from autoprune.search.evidence import Evidence, KnownTrial, known_trials
from autoprune.search.journal import Journal
from autoprune.search.netadapt import NetAdapt
from autoprune.service.pipeline.job_files import EVIDENCE, JOURNAL
from autoprune.service.pipeline.searchers import Found
from autoprune.service.results.job_result import ContinuedView
from autoprune.service.results.wording import BASELINES
from autoprune.service.specs.job_spec import JobSpec

#: Policies of the earlier job that are tried first.
BEST = 3

#: What evaluations depend on, as a user would call it.
_SETTINGS = {
    "version": "the version of autoprune",
    "torch": "the version of torch",
    "device": "the processor or GPU",
    "threads": "the number of threads",
    "network": "the model (or its batch norm, which is measured on the fit images)",
    "fit": "the fit images",
    "search": "the search images",
    "recalibration_images": "the number of fit images",
    "precision": "the precision",
    "reconstruction": "what is reconstructed",
}


@dataclass(frozen=True, slots=True)
class Earlier:
    """The job that another one goes on from.

    Attributes:
        source: Its folder, as the spec names it.
        evidence: What it knew in the end.

    """

    source: str
    evidence: Evidence

    @classmethod
    def of(cls, spec: JobSpec) -> "Earlier | None":
        """Read what the job that `spec` goes on from has left; None where it begins anew.

        Raises:
            SearchError: The folder holds no job that has searched.

        """
        if spec.continue_from is None:
            return None
        folder = Path(spec.continue_from)
        evidence = Evidence.load(folder / EVIDENCE)
        if not (folder / JOURNAL).is_file():
            raise SearchError(f"cannot continue from {folder}: its {JOURNAL} is gone; leave continue_from out")
        return cls(spec.continue_from, evidence)

    def settled(self, spec: JobSpec) -> JobSpec:
        """Return the spec with what is left open as the earlier job settled it."""
        return spec.model_copy(update={"precision": self.evidence.precision}) if spec.precision == "auto" else spec

    def check(self, evaluator: Evaluator) -> None:
        """Make sure that evaluations of the earlier job are evaluations of this one.

        Raises:
            SearchError: They are not; says what differs.

        """
        before, now = self.evidence.settings, json.loads(json.dumps(evaluator.settings))
        changed = [called for name, called in _SETTINGS.items() if before.get(name) != now[name]]
        if changed:
            raise SearchError(
                f"cannot continue from {self.source}: nothing evaluated there holds here; what differs: "
                f"{', '.join(changed)}. Give the same model and images, the same seed, and the same options of images, "
                "residual streams, reconstruction, precision and threads; or begin anew, without continue_from"
            )

    def hand_over(self, journal: Journal) -> None:
        """Copy the earlier job's evaluations into `journal`.

        Raises:
            SearchError: One of the two journals cannot be used.

        """
        with Journal.open(Path(self.source) / JOURNAL) as before:
            journal.adopt(before)

    def trials(self, problem: PruningProblem) -> list[KnownTrial]:
        """Return what is known of networks that `problem` allows, within its budget or not."""
        if self.evidence.names != problem.names:  # without reconstruction, evaluations do not depend on the groups
            return []
        return [
            replace(trial, own=False)
            for trial in self.evidence.trials
            if all(count in width for count, width in zip(trial.kept, problem.widths, strict=True))
        ]

    def best(self, problem: PruningProblem) -> list[PruningPolicy]:
        """Return the earlier job's best policies, brought to the budget of `problem`; best first.

        The first is the best one as it is, where it holds the budget (it is known already); all others fill it.
        """
        tried = [t for t in self.evidence.trials if t.own and not t.probe and not t.trained]
        sizes = dict(zip(self.evidence.names, self.evidence.problem.costs.full().tolist(), strict=True))
        found: dict[PruningPolicy, None] = {}
        for trial in sorted(tried, key=lambda t: (-t.objective, t.regret)):
            ratios = {n: 1 - k / sizes[n] for n, k in zip(self.evidence.names, trial.kept, strict=True)}
            wanted = PruningPolicy.of(ratios.get(name, 0.0) for name in problem.names)
            if not found and problem.fits(problem.kept(wanted)):
                found[problem.project(wanted)] = None
            found[problem.project(wanted, fill=True)] = None
            if len(found) >= BEST:
                break
        return list(found)[:BEST]

    def view(self, evidence: Evidence) -> ContinuedView:
        """Say what of the earlier job was of use to the one that knows `evidence` in the end."""
        known, tried = (
            {trial.kept for trial in evidence.trials if trial.own is own and not trial.trained} for own in (False, True)
        )
        budget = self.evidence.budget
        return ContinuedView(source=self.source, budget=budget, known=len(known), reused=len(known & tried))


def first_policies(problem: PruningProblem, policy: str, earlier: Earlier | None) -> list[PruningPolicy]:
    """Return what a policy's search tries first because of an earlier job; nothing where the policy is a baseline."""
    return [] if earlier is None or policy in BASELINES else earlier.best(problem)


def job_evidence(
    spec: JobSpec, evaluator: Evaluator, precision: str, found: Mapping[str, Found], earlier: Earlier | None
) -> Evidence:
    """Return what a job knows once all its policies have searched: its own trials, and an earlier job's."""
    problem, unpruned = evaluator.problem, evaluator.unpruned()
    trials = [] if earlier is None else earlier.trials(problem)
    for policy, each in found.items():
        trained = policy == NetAdapt.name and spec.short_term_steps > 0
        trials += known_trials(each.result.trials, policy, trained=trained)
    return Evidence(
        problem=problem,
        names=problem.names,
        budget=spec.budget,
        trials=tuple(trials),
        unpruned=unpruned.objective,
        metric="agreement" if unpruned.top1 is None else "top1",
        allocation=None if problem.errors is None else tuple(Allocation(problem).kept(problem.errors).tolist()),
        images=unpruned.images,
        precision=precision,
        settings=evaluator.settings,
    )
