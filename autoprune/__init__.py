"""AutoML pruning-ratio search: how much of every layer of a trained CNN to prune, within a hard budget.

The names below are imported when they are first used, so that ``import autoprune`` loads neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from autoprune.artifact import load_pruned
    from autoprune.certificate import Certificate
    from autoprune.costs.budget import Budget
    from autoprune.datasets.load import load_dataset
    from autoprune.datasets.splits import make_splits
    from autoprune.errors import AutopruneError
    from autoprune.formats.load import load_network
    from autoprune.groups.channel_group import find_groups
    from autoprune.network.network import Network
    from autoprune.network.tracer import trace
    from autoprune.problem import PruningProblem, pruning_problem
    from autoprune.pruning.plan import Plan
    from autoprune.pruning.policy import PruningPolicy
    from autoprune.pruning.surgery import prune
    from autoprune.service.client.client import Client
    from autoprune.service.client.errors import ClientError

__all__ = [
    "AutopruneError",
    "Budget",
    "Certificate",
    "Client",
    "ClientError",
    "Network",
    "Plan",
    "PruningPolicy",
    "PruningProblem",
    "__version__",
    "find_groups",
    "load_dataset",
    "load_network",
    "load_pruned",
    "make_splits",
    "prune",
    "pruning_problem",
    "trace",
]

#: The module that defines each public name; a test holds it against the imports above.
_DEFINED_IN = {
    "AutopruneError": "autoprune.errors",
    "Budget": "autoprune.costs.budget",
    "Certificate": "autoprune.certificate",
    "Client": "autoprune.service.client.client",
    "ClientError": "autoprune.service.client.errors",
    "Network": "autoprune.network.network",
    "Plan": "autoprune.pruning.plan",
    "PruningPolicy": "autoprune.pruning.policy",
    "PruningProblem": "autoprune.problem",
    "find_groups": "autoprune.groups.channel_group",
    "load_dataset": "autoprune.datasets.load",
    "load_network": "autoprune.formats.load",
    "load_pruned": "autoprune.artifact",
    "make_splits": "autoprune.datasets.splits",
    "prune": "autoprune.pruning.surgery",
    "pruning_problem": "autoprune.problem",
    "trace": "autoprune.network.tracer",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'autoprune' has no attribute {name!r}")
    value: object = getattr(import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
