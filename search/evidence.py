"""What the searches of a job found out: enough to answer for other budgets, or to go on from, without the network.

A safetensors file: arrays of numbers and one line of JSON, with a hash, so that a cut or altered file is noticed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from autoprune.costs.cost_model import CostModel
from autoprune.errors import SearchError
from autoprune.files import write_whole
from autoprune.pruning.width_problem import WidthProblem
from autoprune.search.searcher import Trial

FORMAT = "autoprune-evidence/1"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class KnownTrial:
    """A trial that was scored on all search images.

    Attributes:
        policy: Who proposed it.
        kept: Units kept per decision group, ``(n_groups,)``.
        objective: What the search maximised.
        regret: What breaks ties, lower is better.
        probe: Whether it was outside the competition.
        trained: Whether it was trained before it was scored: its score says nothing about others.
        own: Whether a search of this job tried it; False for what an earlier job knew.

    """

    policy: str
    kept: tuple[int, ...]
    objective: float
    regret: float
    probe: bool
    trained: bool
    own: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a job knows about its problem once it has searched.

    Attributes:
        problem: Widths, costs, errors, and the limits that were searched within.
        names: Names of the decision groups.
        budget: The budget that was searched within, as the user wrote it.
        trials: Earlier jobs' first, then this one's, policy after policy.
        allocation: Kept counts with the least sum of errors within the limits, ``(n_groups,)``; None without errors.
        unpruned: Objective of the unpruned network.
        metric: What the objective is: ``"top1"`` or ``"agreement"``.
        images: Number of search images.
        precision: Of the evaluations, ``"fp32"`` or ``"bf16"``.
        settings: Everything that scores depend on besides the plan, by name.

    """

    problem: WidthProblem
    names: tuple[str, ...]
    budget: str
    trials: tuple[KnownTrial, ...]
    allocation: tuple[int, ...] | None
    unpruned: float
    metric: str
    images: int
    precision: str
    settings: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        arrays, costs = self.problem.costs.to_arrays()
        tensors: dict[str, Array] = {f"costs.{name}": array for name, array in arrays.items()}
        tensors |= {
            "widths": np.concatenate(self.problem.widths),
            "kept": np.array([trial.kept for trial in self.trials], dtype=np.int64).reshape(-1, len(self.names)),
            "objective": np.array([trial.objective for trial in self.trials], dtype=np.float64),
            "regret": np.array([trial.regret for trial in self.trials], dtype=np.float64),
        }
        if self.problem.errors is not None:
            tensors["errors"] = np.concatenate(self.problem.errors)
        data: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        data |= {
            "format": FORMAT,
            "names": list(self.names),
            "limits": dict(self.problem.limits),
            "allocation": None if self.allocation is None else list(self.allocation),
            "costs": costs,
            "n_widths": [len(width) for width in self.problem.widths],
            "trials": [[trial.policy, trial.probe, trial.trained, trial.own] for trial in self.trials],
        }
        tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        data["sha256"] = _sha256(tensors, data)
        write_whole(path, save(tensors, {"evidence": json.dumps(data, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file back.

        Raises:
            SearchError: It is missing, of another format, cut off or altered.

        """
        try:
            return cls._of(*_read(path))
        except (KeyError, TypeError, ValueError) as error:
            raise _refusal(path, f"it lacks a part, or has one that does not fit the others ({error!r})") from error

    @classmethod
    def _of(cls, tensors: Mapping[str, Array], data: Mapping[str, Any]) -> Self:
        """Put the parts of a file together."""
        ends = np.cumsum([0, *data["n_widths"]])
        arrays = {name.removeprefix("costs."): array for name, array in tensors.items() if name.startswith("costs.")}
        problem = WidthProblem(
            CostModel.from_arrays(arrays, data["costs"]),
            data["limits"],
            _split(tensors["widths"], ends),
            _split(tensors["errors"], ends) if "errors" in tensors else None,
        )
        trials = tuple(
            KnownTrial(policy, tuple(kept), objective, regret, probe, trained, own)
            for (policy, probe, trained, own), kept, objective, regret in zip(
                data["trials"], *(tensors[name].tolist() for name in ("kept", "objective", "regret")), strict=True
            )
        )
        plain = {name: data[name] for name in _PLAIN}
        allocation = None if data["allocation"] is None else tuple(data["allocation"])
        return cls(problem=problem, names=tuple(data["names"]), trials=trials, allocation=allocation, **plain)


#: Fields that are JSON as they are.
_PLAIN = ("budget", "unpruned", "metric", "images", "precision", "settings")


def known_trials(trials: Sequence[Trial], policy: str, *, trained: bool) -> list[KnownTrial]:
    """Return the trials of one policy that were scored on all search images, and not by a proxy."""
    return [
        KnownTrial(policy, t.kept, t.objective, t.scores.regret, t.probe, trained=trained, own=True)
        for t in trials
        if not (t.screened_out or t.proxied)
    ]


def _split(array: Array, ends: Array) -> tuple[Array, ...]:
    """Cut an array of all groups' widths into one for each group."""
    return tuple(array[start:end] for start, end in pairwise(ends.tolist()))


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return arrays and data of a file that is as it was written."""
    try:
        with safe_open(path, "np") as file:
            data = json.loads((file.metadata() or {}).get("evidence", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise _refusal(path, str(error)) from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise _refusal(path, f"its format is {found!r}, expected {FORMAT!r}")
    if data.pop("sha256", None) != _sha256(tensors, data):
        raise _refusal(path, "it was cut off or altered after it was written")
    return tensors, data


def _sha256(tensors: Mapping[str, Array], data: Mapping[str, Any]) -> str:
    """Return the hash of a file's content."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _refusal(path: Path, reason: str) -> SearchError:
    """Return the error that `path` holds no evidence."""
    return SearchError(
        f"cannot use {path}: {reason}; it is written once all policies of a job have searched: give the folder of such "
        "a job, or run the same search again"
    )
