"""Candidates timed whole on this machine: a budget of latency holds as measured, not only as predicted."""

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.budget import Budget, Limit
from autoprune.costs.quantities import LATENCY, NS_PER_MS
from autoprune.errors import ExportError
from autoprune.formats.onnx_export import export_onnx
from autoprune.formats.onnx_int8 import quantize_onnx
from autoprune.latency_tables.measure import Latency
from autoprune.latency_tables.session import RUNTIME, processor_name
from autoprune.latency_tables.table import LatencyTable
from autoprune.problem import PruningProblem
from autoprune.pruning.surgery import prune
from autoprune.search.answers import Answers
from autoprune.search.driver import SearchResult
from autoprune.search.searcher import Proposal, Trial
from autoprune.service.pipeline.searchers import Found

_Key = TypeVar("_Key")


class Timer(Protocol):
    """Times ONNX files in turn: on this machine :func:`measure_side_by_side`, elsewhere a ``DeviceTimer``."""

    def __call__(self, paths: Sequence[Path], *, input_shape: tuple[int, ...], threads: int = 1) -> list[Latency]:
        """Return one measurement per file, in the order of `paths`."""
        ...


#: Candidates of one search that are timed at most.
MOST_TIMED = 5

#: Images that candidates are quantised with, where the budget speaks of int8 files.
NOISE_IMAGES = 8

#: By how much a candidate has to be faster than the limit, so that the next measurement still holds it.
NOISE = 0.01

#: How often a finished file is timed again that was too slow: the machine may have been busy.
MOST_AGAIN = 2


@dataclass(frozen=True, slots=True)
class LatencyCheck:
    """Times candidates beside the unpruned network.

    Attributes:
        limit: Of latency, as the user gave it.
        unpruned: ONNX file of the unpruned network, of the same precision as the budget.
        answers: Knows the problem, and scores policies that had to be narrowed.
        threads: Of onnxruntime.
        timer: Times files on the device that the budget speaks of.
        noise: Images that candidates are quantised with, ``(n, C, H, W)``: a few, for ranges do not change the time;
            None where the budget speaks of float32 files.
        opset: Operator set of the files.

    """

    limit: Limit
    unpruned: Path
    answers: Answers
    threads: int
    timer: Timer
    opset: int
    noise: NDArray[np.float32] | None = None

    @property
    def _problem(self) -> PruningProblem:
        return self.answers.evaluator.problem

    def held(self, found: SearchResult) -> SearchResult | float:
        """Return a search with the best trial whose network holds the limit when it is timed whole.

        After one that does not, only networks are timed that are predicted to be faster by as much as it was too slow:
        the best other trial, or the same policy projected onto the tighter limit and evaluated, a trial more. One that
        holds the limit by a hair, less than :data:`NOISE`, is taken where nothing faster is left. Where the first ones
        do not hold it: the measured latency of the fastest of them, as a share of the limit.
        """
        competing = [trial for trial in found.trials if trial.competes]
        ranked = sorted(competing, key=lambda trial: (-trial.objective, trial.scores.regret, trial.number))
        ranked = [found.best, *(trial for trial in ranked if trial is not found.best)]
        trials, close, trial = list(found.trials), None, found.best
        least = float("inf")
        for _ in range(MOST_TIMED):
            excess = self.excess(trial)
            least = min(least, excess)
            if excess <= 1 - NOISE:
                return replace(found, best=trial, trials=tuple(trials))
            if excess <= 1 and close is None:
                close = replace(found, best=trial, trials=tuple(trials))
            most = trial.cost[LATENCY] * (1 - NOISE) / excess  # less than this one's, so nothing is timed twice
            faster = next((each for each in ranked if each.cost[LATENCY] <= most), None)
            faster = faster or (None if close else self._narrowed(trial, int(most), trials[-1]))
            if faster is None:
                break
            if faster not in trials:
                trials.append(faster)
            trial = faster
        return least if close is None else close

    def _narrowed(self, trial: Trial, most_ns: int, last: Trial) -> Trial | None:
        """Return `trial`'s policy projected onto a tighter limit, evaluated after the `last` one.

        None where nothing is as small.
        """
        problem = self._problem
        if problem.cost(problem.smallest())[LATENCY] > most_ns:
            return None
        policy = replace(problem, limits={**problem.limits, LATENCY: most_ns}).project(trial.policy)
        kept = problem.kept(policy)
        (answer,) = self.answers.of([problem.plan(policy)])
        return Trial(
            last.number + 1,
            Proposal(policy),
            policy,
            tuple(kept.tolist()),
            problem.cost(kept),
            answer.scores,
            spent=last.spent + 1,
            seconds=None if last.seconds is None or answer.seconds is None else last.seconds + answer.seconds,
        )

    def confirmed(self, onnx: Path, unpruned: Latency, pruned: Latency) -> tuple[Latency, Latency]:
        """Return the latencies of the unpruned network and of a finished file, measured again if it was too slow.

        Raises:
            ExportError: The file breaks the limit each time.

        """
        for _ in range(MOST_AGAIN):
            if share_of_limit(self.limit, unpruned, pruned) <= 1:
                break
            unpruned, pruned = self._timed(onnx)
        share = share_of_limit(self.limit, unpruned, pruned)
        if share > 1:
            raise ExportError(
                f"{onnx} breaks the budget {self.limit}: {pruned.p10_ms:.4g} ms against {unpruned.p10_ms:.4g} ms "
                f"unpruned, {share:.1%} of what is allowed; it must not be used"
            )
        return unpruned, pruned

    def excess(self, trial: Trial) -> float:
        """Return the measured latency of a trial's network as a share of the limit."""
        problem = self._problem
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            module = prune(problem.network, problem.all_groups, problem.plan(trial.policy))  # weights take no time
            export_onnx(module, path, input_shape=problem.network.input_shape, opset=self.opset)
            if self.noise is not None:
                quantize_onnx(path, path, self.noise)
            return share_of_limit(self.limit, *self._timed(path))

    def _timed(self, path: Path) -> tuple[Latency, Latency]:
        """Time the unpruned network and another file in turn."""
        unpruned, pruned = self.timer(
            [self.unpruned, path], input_shape=self._problem.network.input_shape, threads=self.threads
        )
        return unpruned, pruned


def holding(
    found: Mapping[_Key, Found], check: LatencyCheck | None, say: Callable[[_Key, int], None]
) -> dict[_Key, Found]:
    """Return the searches with winners that hold the limit of latency as measured; others are left out.

    Args:
        found: What was found, by search.
        check: Times candidates; None: all hold.
        say: Told which search comes next, and how many hold so far.

    Raises:
        ExportError: None is left.

    """
    if check is None:
        return dict(found)
    held: dict[_Key, Found] = {}
    shares: list[float] = []
    for key, search in found.items():
        say(key, len(held))
        held_or_share = check.held(search.result)
        if isinstance(held_or_share, SearchResult):
            held[key] = replace(search, result=held_or_share)
        else:
            shares.append(held_or_share)
    if not held:
        raise ExportError(
            f"budget {check.limit}: no candidate holds it when it is timed whole, though the table predicted so; the "
            f"fastest took {min(shares):.1%} of what is allowed; "
            "search again while the machine is quiet, measure the table again, or allow more"
        )
    return held


def measured_here(table: LatencyTable) -> bool:
    """Tell whether a table is of this machine's processor and runtime, so that this machine can check it."""
    conditions = table.conditions
    here = (platform.machine(), RUNTIME, processor_name())
    return (conditions.machine, conditions.runtime, table.provenance.get("processor")) == here


def latency_limit(budget: Budget) -> Limit | None:
    """Return the budget's limit of latency, or None."""
    return next((limit for limit in budget.limits if limit.quantity == LATENCY), None)


def not_measured(limit: Limit, table: LatencyTable) -> str:
    """Return the warning that a budget of latency was held as predicted only."""
    device = table.conditions.device
    return (
        f"{limit}: predicted from the table of {device!r} and not measured there, for this is another machine and that "
        "one did not ask for work; time the files on it before you rely on them"
    )


def share_of_limit(limit: Limit, unpruned: Latency, pruned: Latency) -> float:
    """Return a measured latency as a share of what `limit` allows.

    10th percentiles, which other work on the machine hardly disturbs; both files were timed in turn.
    """
    allowed_ms = limit.value * unpruned.p10_ms if limit.relative else limit.value / NS_PER_MS
    return pruned.p10_ms / allowed_ms
