"""Errors a user can act on.

Every error says what was expected, what was found and what to do about it. Anything that is *not* a subclass of
:class:`AutopruneError` is a defect of this project, not of the user's input.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class AutopruneError(Exception):
    """Base of all errors caused by input or environment; the command line exits with code 2, REST answers 4xx."""


class ModelError(AutopruneError):
    """A model file or module cannot be used: corrupt, oversized, unsafe or not a supported kind of network."""


class UnsupportedOperatorError(ModelError):
    """A network uses an operator (or a form of it) outside the supported set; names the node and the operator."""


class DatasetError(AutopruneError):
    """Images or labels cannot be used: unreadable, inconsistent, unsafe archive, too few, one class only."""


class BudgetError(AutopruneError):
    """A budget is malformed: unknown quantity, not a number, zero, negative or above the unpruned network."""


class InfeasibleBudgetError(BudgetError):
    """A well-formed budget that no allowed policy reaches; states the smallest reachable value."""


class LatencyTableError(AutopruneError):
    """A latency table cannot be used: malformed, altered, of another device, incomplete, or too far from the truth."""


class PlanError(AutopruneError):
    """A plan does not fit the network it is applied to, or its JSON is malformed."""


class CriterionError(AutopruneError):
    """A criterion cannot score a network: no images, labels, batch norm or ReLU where it needs them."""


class SearchError(AutopruneError):
    """A search was asked for something it cannot do: bad settings, a trial told out of order, a foreign journal."""


class PoolError(AutopruneError):
    """The workers that evaluate candidates do not start, or one was lost; what was evaluated is in the journal."""


class ClusterError(PoolError):
    """A cluster cannot be used as it is set up: its address, its certificates, or its workers; says what to change."""


class ExportError(AutopruneError):
    """An exported file breaks the budget or disagrees numerically with the network it came from; says by how much."""


class NumericalError(AutopruneError):
    """Masked and pruned networks disagree, or a value is not finite: the job stops, nothing wrong is returned."""


class Cancelled(AutopruneError):  # noqa: N818 - a request that was met, not a failure
    """The work was stopped because its owner asked for it; what was evaluated is in the journal."""


class UnknownNameError(AutopruneError):
    """A name (architecture, policy, criterion, ...) is not known; lists the known ones and the closest match."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Describe `name`, which is not among the `known` names of this `kind` (for example ``"policy"``)."""
        names = sorted(known)
        self._arguments = (kind, name, tuple(names))
        longer = [known_name for known_name in names if name and known_name.startswith(name)]
        close = sorted(longer, key=len)[:1] or get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")

    def __reduce__(self) -> tuple[type["UnknownNameError"], tuple[str, str, tuple[str, ...]]]:
        """Come back from another process as what it was."""
        return UnknownNameError, self._arguments
