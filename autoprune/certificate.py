"""The certificate: what is claimed of an exported file, measured on that file."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from autoprune.costs.budget import holds
from autoprune.costs.cost_model import cost_model
from autoprune.errors import ExportError
from autoprune.formats.onnx_export import export_onnx
from autoprune.formats.onnx_import import import_onnx
from autoprune.formats.onnx_run import run_onnx
from autoprune.groups.channel_group import find_groups

FORMAT = "autoprune-certificate/1"

#: Largest difference between the exported file in onnxruntime and the pruned network in PyTorch, relative to the
#: largest output (at least 1).
PARITY_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Certificate:
    """Facts about one exported ONNX file; a certificate exists only if all of them hold.

    Attributes:
        budget: The budget as the user wrote it.
        limits: Absolute limits, ``{quantity: largest allowed cost}``.
        cost: Cost counted in the exported file itself (re-imported), same quantities and more.
        cost_unpruned: Cost of the unpruned network.
        file_bytes: Size of the file on disk, graph description included.
        onnx_sha256: Hash of the file.
        plan_sha256: Hash of the plan's JSON.
        model_sha256: Fingerprint of the original network.
        parity_error: Largest difference to the pruned PyTorch network, relative to the largest output (at least 1).
        parity_images: Number of images compared.
        masked_error: Largest difference between masked and pruned network (float64), same scale.
        latency: Measured in onnxruntime side by side with the unpruned network; None when not measured.
        splits: Hash of each data split.
        seed: Seed of the job.
        versions: Versions of everything that computed.
        int8: The int8 file that was made of the exported one, and the scores of both; None where there is none.

    """

    budget: str
    limits: Mapping[str, int]
    cost: Mapping[str, int]
    cost_unpruned: Mapping[str, int]
    file_bytes: int
    onnx_sha256: str
    plan_sha256: str
    model_sha256: str
    parity_error: float
    parity_images: int
    masked_error: float
    latency: Mapping[str, object] | None
    splits: Mapping[str, str]
    seed: int
    versions: Mapping[str, str]
    int8: Mapping[str, object] | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the certificate as JSON-ready data."""
        return {"format": FORMAT, "holds": True, **asdict(self)}


def count_onnx(path: Path) -> dict[str, int]:
    """Return the cost of an ONNX file, counted from the file alone."""
    network = import_onnx(path)
    return {**cost_model(network, find_groups(network), ()).cost(()), "bytes": path.stat().st_size}


def check_budget(path: Path, limits: Mapping[str, int]) -> dict[str, int]:
    """Count an exported file and hold it against the budget.

    Raises:
        ExportError: The file costs more than a limit allows.

    """
    cost = count_onnx(path)
    if not holds(cost, limits):
        broken = ", ".join(
            f"{q} {cost[q]:,} > {most:,} (by {cost[q] - most:,})" for q, most in limits.items() if cost[q] > most
        )
        raise ExportError(f"{path.name} breaks the budget: {broken}; the file must not be used")
    return cost


def check_parity(path: Path, module: fx.GraphModule, images: Tensor) -> float:
    """Compare an exported file in onnxruntime with the network it came from on `images`, ``(n, C, H, W)``.

    Raises:
        ExportError: They differ by more than 1e-4 of the largest output (at least 1), or are not finite.

    """
    outputs = run_onnx(path, images.cpu().numpy())
    with torch.no_grad():
        expected = module.cpu().eval()(images.cpu()).numpy()
    if outputs.shape != expected.shape:
        raise ExportError(f"{path.name}: output has shape {outputs.shape}, the pruned network's {expected.shape}")
    error = float(np.abs(outputs - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not error <= PARITY_TOLERANCE:
        raise ExportError(
            f"{path.name} differs from the pruned network by {error:.2e} of its largest output "
            f"(allowed {PARITY_TOLERANCE:.0e}); the file must not be used"
        )
    return error


def export_checked(
    module: fx.GraphModule,
    path: Path,
    *,
    input_shape: tuple[int, ...],
    images: Tensor,
    limits: Mapping[str, int],
    opset: int,
) -> tuple[dict[str, int], float]:
    """Export `module` to `path` if the file keeps `limits` and onnxruntime agrees with it; return (cost, parity error).

    A file that does not is never seen at `path`.

    Raises:
        ExportError: The file breaks a limit or differs from the network on `images`, ``(n, C, H, W)``.

    """
    draft = path.with_name(f".{path.stem}.draft.onnx")
    try:
        export_onnx(module, draft, input_shape=input_shape, opset=opset)
        parity_error = check_parity(draft, module, images)
        cost = check_budget(draft, limits)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return cost, parity_error


def versions() -> dict[str, str]:
    """Return the versions of everything whose rounding the figures depend on."""
    names = ("autoprune", "torch", "onnx", "onnxruntime", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
