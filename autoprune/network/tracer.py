"""Any ``nn.Module`` that torch.fx can trace, as a canonical network."""

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.network._trace_call import BATCHES, Call, Claims, Output, Value
from autoprune.network._trace_functions import FUNCTIONS
from autoprune.network._trace_modules import MODULES
from autoprune.network._trace_record import Record, record
from autoprune.network.network import Network, NetworkBuilder, Shape

#: Largest difference between the original and the canonical network, relative to the largest output.
TOLERANCE = 1e-4

#: What running or tracing foreign code may raise when that code does not fit; anything else is a defect.
_FOREIGN_ERRORS = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError, AssertionError,
    fx.proxy.TraceError,
)  # fmt: skip


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Convert `module` to a canonical network, in eval mode and float32.

    The module is traced symbolically, run on random images at two batch sizes to learn all shapes and which
    dimension is the batch, and converted node by node. The result is compared with the original on these images.
    It keeps the names of the layers and shares no tensor with `module`, which is not changed.

    Args:
        module: Takes one batch of images, returns one tensor.
        input_shape: Shape of one image without the batch, ``(C, H, W)``.

    Raises:
        UnsupportedOperatorError: A function, method or layer type outside the supported set, control flow that
            depends on the image, or a supported operator in an unsupported form; names the node.
        ModelError: The module does not run on such images, shares weights between places, has weights that are not
            finite, or returns something else than one tensor per image.

    """
    original = _prepare(module)
    root = _Root(original)
    graph = _Tracer().graph_of(root)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCHES[1], *input_shape, generator=generator)
    try:
        facts = record(root, graph, images)
    except _FOREIGN_ERRORS as error:
        raise ModelError(f"the module does not run on images of shape {tuple(input_shape)}: {_line(error)}") from error
    network = _Conversion(root, graph, facts, tuple(input_shape)).network()
    _verify(network, images, facts.result)
    return network


class _Root(nn.Module):
    """Calls a module with one batch of images, so that its other arguments have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> object:
        return self.network(image)


class _Tracer(fx.Tracer):
    """Traces down to the layers of torch.nn; says which layer decides on values it cannot know."""

    def graph_of(self, root: nn.Module) -> fx.Graph:
        """Trace `root`; whatever its code raises says that it cannot be traced."""
        try:
            return self.trace(root)
        except _FOREIGN_ERRORS as error:
            if isinstance(error, fx.proxy.TraceError):
                raise UnsupportedOperatorError(f"the module cannot be traced: {_line(error)}") from error
            raise ModelError(f"the module cannot be traced: {type(error).__name__}: {_line(error)}") from error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        raise self._control_flow(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        try:
            return super().iter(obj)
        except fx.proxy.TraceError:
            raise self._control_flow(obj) from None

    def _control_flow(self, obj: fx.Proxy) -> UnsupportedOperatorError:
        where = _path(next(reversed(self.module_stack), "")) or type(self.root).__name__
        return UnsupportedOperatorError(
            f"node {obj.node.name!r}, in the forward of {where!r}: control flow (if, while, assert, for) that depends "
            "on the image or its shape is not supported; only straight code is"
        )


class _Conversion:
    """One walk over a traced graph that fills a builder."""

    def __init__(self, root: nn.Module, graph: fx.Graph, facts: Record, input_shape: Shape) -> None:
        self._root, self._graph, self._facts, self._input_shape = root, graph, facts, input_shape
        self._taken = {_path(target) for target, _ in root.named_modules()}
        self._claims = Claims()
        self._constants: dict[Value, fx.Node] = {}
        self._env: dict[fx.Node, object] = {}

    def network(self) -> Network:
        """Convert all nodes in order."""
        placeholder = next(node for node in self._graph.nodes if node.op == "placeholder")
        self._builder = NetworkBuilder(placeholder.name, self._input_shape)
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._env[node] = Value((BATCHES[0], *self._input_shape), 0, self._builder.input)
            elif node.op == "output":
                return self._builder.finish(self._output(self._argument(node.args[0])))
            elif node in self._facts.known:
                self._env[node] = self._facts.known[node]
            else:
                self._convert(node)
        raise AssertionError("a graph without output")

    def _convert(self, node: fx.Node) -> None:
        """Convert one call that depends on the image."""
        args = [self._argument(argument) for argument in node.args]
        kwargs = {name: self._argument(argument) for name, argument in node.kwargs.items()}
        if node.op == "call_module":
            result, in_place = self._layer(node, args, kwargs)
        else:
            result, in_place = self._function(node, args, kwargs)
        if in_place:  # every other name of the same tensor now means the result
            self._env.update({other: result for other, value in self._env.items() if value is args[0]})
        self._env[node] = result

    def _layer(self, node: fx.Node, args: list[object], kwargs: dict[str, object]) -> tuple[Output, bool]:
        """Convert a call of a torch.nn layer."""
        layer = self._root.get_submodule(str(node.target))
        name = _path(str(node.target)) or type(layer).__name__.lower()
        converter = MODULES.get(type(layer))
        if converter is None:
            known = ", ".join(sorted(kind.__name__ for kind in MODULES))
            raise UnsupportedOperatorError(
                f"node {name!r}: layer type {type(layer).__name__} is not supported; supported: {known}"
            )
        call = self._call(node, name, type(layer).__name__)
        self._claims.add(call.name, node, layer.parameters())
        inputs = [*args, *kwargs.values()]
        if len(inputs) != 1 or not isinstance(inputs[0], Value):
            raise call.unsupported("expected one input tensor and nothing else")
        return converter(call, layer, inputs[0]), bool(getattr(layer, "inplace", False))

    def _function(self, node: fx.Node, args: list[object], kwargs: dict[str, object]) -> tuple[Output, bool]:
        """Convert a call of a function or method."""
        name = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))
        if name == "getattr":
            name, args = str(args[1]), args[:1]
        in_place = bool(kwargs.get("inplace")) or (name.endswith("_") and not name.startswith("_"))
        full_name = self._function_name(node, name)
        converter = FUNCTIONS.get(name.rstrip("_") if in_place else name)
        if converter is None or not _is_known_function(node):
            raise UnsupportedOperatorError(
                f"node {full_name!r}: operator {name!r} is not supported{_HINTS.get(name, '')}; "
                f"supported: {', '.join(sorted(FUNCTIONS))}"
            )
        call = self._call(node, full_name, name)
        for alias in ("input", "self", "tensors"):
            if alias in kwargs and not args:
                args = [kwargs.pop(alias)]
        try:
            return converter(call, *args, **kwargs), in_place
        except TypeError as error:
            raise call.unsupported(f"called with arguments that are not supported: {_line(error)}") from error

    def _call(self, node: fx.Node, name: str, operator: str) -> Call:
        """Describe one call to its converter."""
        output = self._facts.outputs.get(node)
        if output is None:
            raise UnsupportedOperatorError(
                f"node {name!r} ({operator}): it must return tensors with one dimension that follows the batch size"
            )
        return Call(self._builder, self._claims, self._constants, node, name, operator, output)

    def _function_name(self, node: fx.Node, name: str) -> str:
        """Name for the layers that replace a function: owner of its weight, else where it is called plus its name."""
        if name in ("conv2d", "linear", "prelu", "layer_norm", "group_norm"):
            weight = node.kwargs.get("weight", node.args[1] if len(node.args) > 1 else None)
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                owner = _path(str(weight.target)).rpartition(".")[0]
                if owner:
                    return owner
        scope = _path(next(reversed(node.meta.get("nn_module_stack", {})), ""))
        full = f"{scope}.{name}" if scope else name
        return f"{full}_function" if full in self._taken else full

    def _argument(self, argument: object) -> object:
        """Replace nodes by what they stand for, in any nesting."""
        if isinstance(argument, fx.Node):
            return self._env[argument]
        if isinstance(argument, tuple | list):
            return (
                type(argument)(self._argument(item) for item in argument)
                if type(argument) in (tuple, list)
                else [self._argument(item) for item in argument]
            )
        if isinstance(argument, slice):
            return slice(*(self._argument(item) for item in (argument.start, argument.stop, argument.step)))
        return argument

    def _output(self, result: object) -> fx.Node:
        """Return the node of the network's output."""
        if not isinstance(result, Value):
            raise ModelError(f"a network returns one tensor, this module returns a {type(result).__name__}")
        if result.node is None or result.batch_dim != 0:
            raise ModelError(
                "the module's output does not depend on the image, or its first dimension is not the batch"
            )
        return result.node


_HINTS = {
    "log_softmax": " (remove it: a network returns logits)",
    "item": " (values of tensors are not known beforehand)",
}


def _prepare(module: nn.Module) -> nn.Module:
    """Copy a module to the CPU in eval mode and float32, and check its weights."""
    try:
        original = copy.deepcopy(module).cpu().float().eval()
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"the module cannot be copied: {_line(error)}") from error
    for name, tensor in (*original.named_parameters(), *original.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ModelError(f"{name!r} is not initialised: run a lazy module once before it is traced")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name!r} has values that are not finite (NaN or infinity)")
    return original


def _verify(network: Network, images: Tensor, expected: object) -> None:
    """Compare the canonical network with what the original returned for `images`."""
    assert isinstance(expected, Tensor)
    with torch.no_grad():
        result = network.module(images)
    scale = float(expected.abs().max())
    if not math.isfinite(scale):
        raise ModelError("the network's output for random images is not finite (NaN or infinity)")
    if result.shape != expected.shape or not float((result - expected).abs().max()) <= TOLERANCE * scale + 1e-6:
        raise ModelError(
            "the converted network differs from the module: it changes tensors in place, draws random numbers or has "
            "hooks that compute; rewrite these parts as plain functions"
        )


def _is_known_function(node: fx.Node) -> bool:
    """Tell whether a call goes to PyTorch or Python itself, not to somebody's function of the same name."""
    home = getattr(node.target, "__module__", None) or "torch"
    return node.op == "call_method" or home.split(".")[0] in ("torch", "_operator", "builtins")


def _path(target: str) -> str:
    """Strip the root's own attribute from a module path."""
    return target.removeprefix("network").removeprefix(".")


def _line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
