"""Networks that end in a softmax: losses are taken of the logits before it, or they would take a softmax of shares."""

from torch import fx, nn

from autoprune.network.layers import Reshape
from autoprune.network.network import with_replaced


def final_softmax(module: nn.Module) -> str | None:
    """Return the name of the softmax over classes that a canonical network ends in; None without one."""
    if not isinstance(module, fx.GraphModule):
        return None
    (end,) = (node for node in module.graph.nodes if node.op == "output")
    (node,) = end.all_input_nodes
    while node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, nn.Softmax):
            return str(node.target) if layer.dim in (1, -1) else None
        if not isinstance(layer, nn.Identity | Reshape):
            return None
        (node,) = node.all_input_nodes
    return None


def without_softmax(module: nn.Module) -> nn.Module:
    """Return the network without the softmax that it ends in, its other layers shared; itself where there is none."""
    name = final_softmax(module)
    if name is None:
        return module
    assert isinstance(module, fx.GraphModule)
    return with_replaced(module, {name: nn.Identity()})
