"""A search whose candidates a proxy scored ends with one evaluation like all others: that of its winner."""

from dataclasses import replace

from autoprune.search.answers import Answers
from autoprune.search.driver import SearchResult


def judged(found: SearchResult, answers: Answers) -> SearchResult:
    """Return a search by a proxy with one trial more, its winner as `answers` score it; nothing else competes.

    So what the search found compares with what others did, and the scores of the proxy with nothing but each other.

    Raises:
        AutopruneError: Whatever evaluator, pool or journal raise.
        Cancelled: The pool was waiting and was told to stop.

    """
    best, last = found.best, found.trials[-1]
    (answer,) = answers.of([answers.evaluator.problem.plan(best.policy)])
    winner = replace(
        best,
        number=last.number + 1,
        scores=answer.scores,
        spent=last.spent + 1,
        seconds=None if last.seconds is None or answer.seconds is None else last.seconds + answer.seconds,
    )
    record = found.screening
    return replace(
        found,
        best=winner,
        trials=(*(replace(trial, proxied=True) for trial in found.trials), winner),
        evaluated=found.evaluated + answer.fresh,
        screening=None if record is None else replace(record, full=record.full + 1),
        asked=found.asked | answers.asked,
    )
