"""Networks on their way to the service and back."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from autoprune.artifact import load_pruned
from autoprune.errors import ModelError
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import onnx_bytes
from autoprune.formats.onnx_import import import_onnx
from autoprune.network.network import Shape
from autoprune.network.tracer import trace
from autoprune.pruning.plan import Plan

if TYPE_CHECKING:
    from autoprune.service.client.job import Job


def module_onnx(module: object, input_shape: Shape | None) -> bytes:
    """Return a live module as the content of an ONNX file; layers keep their names and batch norms.

    Raises:
        ModelError: No module, no input shape, or a module that cannot be traced.

    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected the path of a model or an nn.Module, found {type(module).__name__}")
    if input_shape is None or len(input_shape) != 3:
        raise ModelError(
            f"an nn.Module needs the shape of one image: input_shape=(channels, height, width); found {input_shape}"
        )
    network = trace(module, tuple(input_shape))
    return onnx_bytes(network.module, input_shape=network.input_shape, fold=False)


def pruned_network(job: "Job", artifacts: Mapping[str, str], onnx: bytes | None) -> nn.Module:
    """Return the network that a job's `artifacts` (names by kind) describe: by plan where its `onnx` is at hand."""
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        folder = Path(name)
        if onnx is None:
            return import_onnx(*job.download(folder, artifacts["onnx"])).module
        plan, weights = job.download(folder, artifacts["plan"], artifacts["weights"])
        original = folder / "original.onnx"
        original.write_bytes(onnx)
        return load_pruned(load_network(original), Plan.load(plan), weights)
