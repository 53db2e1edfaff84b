"""Scores of plans from the journal where it knows them, else from a pool; what is new is recorded as it arrives."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.pruning.plan import Plan
from autoprune.search.journal import Journal, plan_key
from autoprune.search.pool import DeadlyPlanError, EvaluationPool, ShouldStop, never


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one plan.

    Attributes:
        scores: What its network scored.
        fresh: Whether it had to be evaluated now.
        seconds: What whoever asked would have waited for it without others before: what the evaluation took, also where
            the journal knew it, and nothing for what was asked before. None where the journal does not say.

    """

    scores: Scores
    fresh: bool
    seconds: float | None


class Answers:
    """Answers for one evaluator; the same plan is evaluated once. Belongs to one search."""

    def __init__(
        self, evaluator: PlanEvaluator, journal: Journal, pool: EvaluationPool, should_stop: ShouldStop = never
    ) -> None:
        """Answer from `journal`, and what it does not know from `evaluator`.

        Args:
            evaluator: Scores the plans that are not known.
            journal: Answers and remembers.
            pool: Where evaluations run.
            should_stop: Asked by the pool while it waits.

        """
        self.evaluator = evaluator
        self.should_stop = should_stop
        self._journal = journal
        self._pool = pool
        self._asked: set[tuple[str, str]] = set()

    @property
    def asked(self) -> frozenset[tuple[str, str]]:
        """Keys of the evaluations asked for so far, as they stand in the journal: of the settings, and of the plan."""
        return frozenset(self._asked)

    def of(self, plans: Sequence[Plan], *, images: int | None = None) -> Generator[Answer]:
        """Yield the answers for `plans`, in order, on the first `images` search images (None: all).

        Raises:
            AutopruneError: Whatever the evaluator, the pool or the journal raises.
            Cancelled: The pool was waiting and `should_stop` said so.

        """
        settings_key = journal_key(self.evaluator.settings_key, images)
        keys = [plan_key(plan) for plan in plans]
        by_key = dict(zip(keys, plans, strict=True))
        known = {key: self._journal.get(settings_key, plan) for key, plan in by_key.items()}
        missing = [plan for key, plan in by_key.items() if known[key] is None]
        arriving = self._pool.evaluate(self.evaluator, missing, images=images, should_stop=self.should_stop)
        try:
            for key in keys:
                evaluated = known[key]
                fresh = evaluated is None
                if evaluated is None:
                    evaluated = known[key] = self._journal.put(settings_key, by_key[key], next(arriving))
                again = (settings_key, key) in self._asked
                self._asked.add((settings_key, key))
                yield Answer(evaluated.scores, fresh, 0.0 if again else evaluated.seconds)
        except DeadlyPlanError as error:  # the others need not be evaluated again when the search goes on
            for plan, evaluated in error.others:
                self._journal.put(settings_key, plan, evaluated)
            raise
        finally:
            arriving.close()


def journal_key(settings_key: str, images: int | None) -> str:
    """Return the key under which scores on the first `images` search images (None: all) stand in a journal."""
    if images is None:
        return settings_key
    return hashlib.sha256(f"{settings_key} on the first {images} images".encode()).hexdigest()
