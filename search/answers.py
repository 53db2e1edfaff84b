"""Scores of plans from the journal where it knows them, else from a pool; what is new is recorded as it arrives."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.pruning.plan import Plan
from autoprune.search.journal import Journal, plan_key
from autoprune.search.pool import EvaluationPool, ShouldStop


@dataclass(frozen=True, slots=True)
class Answer:
    """Scores of one plan, and whether they had to be evaluated for it."""

    scores: Scores
    fresh: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers for one evaluator; the same plan is evaluated once.

    Attributes:
        evaluator: Scores the plans that are not known.
        journal: Answers and remembers.
        pool: Where evaluations run.
        should_stop: Asked by the pool while it waits.

    """

    evaluator: PlanEvaluator
    journal: Journal
    pool: EvaluationPool
    should_stop: ShouldStop

    def of(self, plans: Sequence[Plan], *, images: int | None = None) -> Generator[Answer]:
        """Yield the answers for `plans`, in order, on the first `images` search images (None: all).

        Raises:
            AutopruneError: Whatever the evaluator, the pool or the journal raises.
            Cancelled: The pool was waiting and `should_stop` said so.

        """
        settings_key = journal_key(self.evaluator.settings_key, images)
        keys = [plan_key(plan) for plan in plans]
        by_key = dict(zip(keys, plans, strict=True))
        known = {key: self.journal.get(settings_key, plan) for key, plan in by_key.items()}
        missing = [plan for key, plan in by_key.items() if known[key] is None]
        arriving = self.pool.evaluate(self.evaluator, missing, images=images, should_stop=self.should_stop)
        try:
            for key in keys:
                scores = known[key]
                fresh = scores is None
                if scores is None:
                    scores = known[key] = self.journal.put(settings_key, by_key[key], next(arriving))
                yield Answer(scores, fresh)
        finally:
            arriving.close()


def journal_key(settings_key: str, images: int | None) -> str:
    """Return the key under which scores on the first `images` search images (None: all) stand in a journal."""
    if images is None:
        return settings_key
    return hashlib.sha256(f"{settings_key} on the first {images} images".encode()).hexdigest()
