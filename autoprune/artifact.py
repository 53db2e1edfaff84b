"""The artifact of a job: a plan and the weights of the pruned network, re-applied to the original model."""

from pathlib import Path

from torch import fx

from autoprune.errors import PlanError
from autoprune.formats.weights import load_weights
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.network import Network, network_of
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune


def load_pruned(
    network: Network, plan: Plan, weights: Path | None = None, *, groups: ChannelGroups | None = None
) -> fx.GraphModule:
    """Return the pruned network that `plan` and `weights` (safetensors) describe, from the original `network`.

    Without `weights` the kept channels have the original's weights.

    Raises:
        PlanError: The plan was made for another network, or does not fit this one.
        ModelError: The weights are unreadable or do not fit the pruned network.

    """
    if plan.model_sha256 != network.fingerprint():
        raise PlanError(
            "the plan was made for another network (its model_sha256 is not this network's fingerprint); "
            "load the original model file that the plan was made for"
        )
    module = prune(network, groups or find_groups(network), plan)
    if weights is None:
        return module
    return load_weights(network_of(module, network.input_shape), weights).module
