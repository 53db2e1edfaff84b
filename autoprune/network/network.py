"""A canonical network: one image in, one tensor out, every node one layer of :mod:`autoprune.network.layers`."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.network.layers import LAYERS, Constant

Shape = tuple[int, ...]

_HOOK_TABLES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, OrderedDict))


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network in canonical form.

    Attributes:
        module: The graph: one placeholder, ``call_module`` nodes whose targets are all different, one output.
        input_shape: Shape of one image without the batch, ``(C, H, W)``.
        shapes: Output shape of every node, by node name, at batch size 1.

    """

    module: fx.GraphModule
    input_shape: Shape
    shapes: Mapping[str, Shape]

    @property
    def input_name(self) -> str:
        """Name of the graph's only placeholder."""
        return next(str(node.name) for node in self.module.graph.nodes if node.op == "placeholder")

    @property
    def output_shape(self) -> Shape:
        """Shape of the output for one image, without the batch."""
        return self.shapes["output"][1:]

    def nodes(self) -> Iterator[tuple[fx.Node, nn.Module]]:
        """Yield every computing node with its layer, in execution order."""
        for node in self.module.graph.nodes:
            if node.op == "call_module":
                yield node, self.module.get_submodule(str(node.target))

    def layers(self) -> dict[str, nn.Module]:
        """Return every layer by its name (the node's target), in execution order."""
        return {str(node.target): layer for node, layer in self.nodes()}

    def fingerprint(self) -> str:
        """Return the sha256 of wiring, layer settings and weights: equal networks have equal fingerprints."""
        digest = hashlib.sha256(repr(self.input_shape).encode())
        for node, layer in self.nodes():
            settings = sorted((k, v) for k, v in vars(layer).items() if not k.startswith("_") and k != "training")
            digest.update(repr((node.name, str(node.target), type(layer).__name__, settings, node.args)).encode())
        for name, tensor in self.module.state_dict().items():
            digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def with_layers(self, layers: Mapping[str, nn.Module]) -> fx.GraphModule:
        """Return a module with the same wiring in which `layers` replace the layers of the same names.

        Layers not named are shared with this network, not copied. No code is generated: milliseconds.
        """
        return with_replaced(self.module, layers)


class NetworkBuilder:
    """Builds a canonical network node by node; the ONNX importer and the tracer both end here."""

    def __init__(self, input_name: str, input_shape: Shape) -> None:
        """Start a network that takes images of `input_shape`, ``(C, H, W)`` without the batch."""
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._input_shape = tuple(input_shape)
        self.input: fx.Node = self._graph.placeholder(_identifier(input_name))

    def add(self, layer: nn.Module, *inputs: fx.Node, name: str) -> fx.Node:
        """Append `layer`, applied to `inputs`, under the dotted `name` (made unique if taken); return its node.

        Raises:
            UnsupportedOperatorError: The layer's type is not in :data:`autoprune.network.layers.LAYERS`.

        """
        if type(layer) not in LAYERS:
            raise UnsupportedOperatorError(
                f"node {name!r}: layer type {type(layer).__name__} is not supported; "
                f"supported: {', '.join(sorted(kind.__name__ for kind in LAYERS))}"
            )
        target = self._place(layer, name)
        return self._graph.call_module(target, args=inputs)

    def finish(self, output: fx.Node) -> Network:
        """Close the graph at `output`, drop what does not lead to it, and run it once for the shapes.

        Raises:
            ModelError: The network does not run on an image of the input shape.

        """
        self._graph.output(output)
        self._separate_constants()
        module = fx.GraphModule(self._root, self._graph)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        return network_of(module.eval(), self._input_shape)

    def _separate_constants(self) -> None:
        """Give every use of a constant a copy of its own: each is cut along with the activation it meets."""
        for node in [n for n in self._graph.nodes if n.op == "call_module"]:
            layer = self._root.get_submodule(str(node.target))
            uses = [(user, i) for user in node.users for i, argument in enumerate(user.args) if argument is node]
            if not isinstance(layer, Constant):
                continue
            for user, index in uses[1:]:
                with self._graph.inserting_before(user):
                    copied = self.add(Constant(layer.value.clone()), name=str(node.target))
                user.update_arg(index, copied)

    def _place(self, layer: nn.Module, name: str) -> str:
        """Attach `layer` at a free dotted path close to `name` and return that path."""
        path = _outside_layers(self._root, [_identifier(part) for part in name.split(".") if part] or ["layer"])
        free, count = path, 1
        while not _is_free(self._root, free):
            count += 1
            free = f"{path}_{count}"
        *parents, leaf = free.split(".")
        owner = self._root
        for part in parents:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(leaf, layer)
        return free


def network_of(module: fx.GraphModule, input_shape: Shape) -> Network:
    """Wrap a canonical graph module, running it once on zeros for the shapes of all nodes (batch 1).

    Raises:
        ModelError: The network does not run on an image of `input_shape`.

    """
    recorder = _ShapeRecorder(module)
    try:
        with torch.no_grad():
            recorder.run(torch.zeros(1, *input_shape))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the network does not run on one image of shape {input_shape}: {reason}") from error
    return Network(module, tuple(input_shape), recorder.shapes)


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and remembers each node's output shape."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, Shape] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def shallow_copy(layer: nn.Module) -> nn.Module:
    """Return a layer with tables of its own, without hooks; the tensors in the tables are still shared."""
    clone = object.__new__(type(layer))  # GraphModule.__new__ would make a class without the generated forward
    clone.__dict__.update(layer.__dict__)  # three times as fast as copy.copy and nn.Module's attribute checks
    for name in ("_parameters", "_buffers", "_modules"):
        clone.__dict__[name] = dict(layer.__dict__[name])
    for name in _HOOK_TABLES:
        clone.__dict__[name] = OrderedDict()
    return clone


def own_copy(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer that shares no tensor with it."""
    clone = shallow_copy(layer)
    for name, parameter in clone._parameters.items():
        if parameter is not None:
            clone._parameters[name] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
    for name, buffer in clone._buffers.items():
        if buffer is not None:
            clone._buffers[name] = buffer.detach().clone()
    return clone


def with_replaced(module: fx.GraphModule, layers: Mapping[str, nn.Module]) -> fx.GraphModule:
    """Copy the tree of containers of `module`, sharing leaves, and with `layers` put in; the class is shared too."""

    def clone_of(node: nn.Module, prefix: str) -> nn.Module:
        if prefix in layers or not node._modules:
            return layers.get(prefix, node)
        clone = shallow_copy(node)
        clone._modules = {
            name: clone_of(child, f"{prefix}.{name}" if prefix else name)
            for name, child in node._modules.items()
            if child is not None
        }
        return clone

    result = clone_of(module, "")
    assert isinstance(result, fx.GraphModule)
    return result


def _identifier(text: str) -> str:
    """Turn any text into a name a module attribute may have; digits alone are allowed, as in nn.Sequential."""
    return "".join(char if char.isalnum() or char == "_" else "_" for char in text) or "layer"


def _outside_layers(root: nn.Module, parts: list[str]) -> str:
    """Join `parts` to a dotted path that does not lead into a layer: below a layer ``a``, ``a.b`` becomes ``a_b``."""
    path: list[str] = []
    owner: nn.Module | None = root
    for i, part in enumerate(parts):
        child = None if owner is None else owner._modules.get(part)
        if child is not None and type(child) is not nn.Module and i < len(parts) - 1:
            return _outside_layers(root, [*path, f"{part}_{parts[i + 1]}", *parts[i + 2 :]])
        path.append(part)
        owner = child
    return ".".join(path)


def _is_free(root: nn.Module, path: str) -> bool:
    """Tell whether a module can be attached at `path`: nothing there, no layer on the way, no attribute."""
    owner = root
    *parents, leaf = path.split(".")
    for part in parents:
        child = owner._modules.get(part)
        if child is None:
            return not hasattr(owner, part) and not any(hasattr(nn.Module, name) for name in path.split("."))
        if type(child) is not nn.Module:
            return False
        owner = child
    return not hasattr(owner, leaf)
