"""The command ``export``: plan, weights and original model in, a checked ONNX file out."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from torch import Tensor, fx

from autoprune.artifact import load_pruned
from autoprune.certificate import export_checked as export_file
from autoprune.costs.cost_model import cost_model
from autoprune.costs.quantities import QUANTITIES
from autoprune.files import file_sha256
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.service.cli.console import stderr, stdout
from autoprune.service.cli.errors import CommandError
from autoprune.service.cli.inspect import load_model
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.pipeline.inputs import load_splits
from autoprune.service.pipeline.quantized import Quantized, quantized
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results import wording
from autoprune.service.specs.job_spec import read_spec

PARITY_IMAGES = 16

#: Settings of a job that are needed and not looked at where nothing is searched.
_NO_SEARCH = {"budget": "macs=100%", "policies": ["uniform"]}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was checked of one exported file.

    Attributes:
        onnx: The file.
        cost: Cost counted in the file itself.
        cost_unpruned: Cost of the original.
        file_bytes: Size on disk.
        onnx_sha256: Hash of the file.
        parity_error: Largest difference to the PyTorch network, relative to the largest output (at least 1).
        parity_images: Number of images compared.
        int8: Of the int8 file: what a certificate says of it, and `onnx`, its path; None where there is none.

    """

    onnx: str
    cost: dict[str, int]
    cost_unpruned: dict[str, int]
    file_bytes: int
    onnx_sha256: str
    parity_error: float
    parity_images: int
    int8: dict[str, Any] | None = None


def run_export(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Model, plan and weights do not belong together, or the file is not what it should be.

    """
    own = {"plan", "pruned_weights", "output", "as_json"}
    values = spec_values({name: value for name, value in params.items() if name not in own})
    if bool(params["int8"]) != (params["dataset"] is not None):
        raise CommandError("--int8 and --data belong together: int8 files are calibrated and scored on images")
    network = load_model(values)
    module = load_pruned(network, Plan.load(Path(str(params["plan"]))), _path(params["pruned_weights"]))
    target = Path(str(params["output"]))
    images = torch.randn(PARITY_IMAGES, *network.input_shape, generator=torch.Generator().manual_seed(0))
    exported = export_checked(module, network, target, images, opset=int(str(params["opset"])))
    if params["int8"]:
        made = _quantized(values, network, target)
        exported = replace(exported, int8={"onnx": str(made.path), **made.to_dict()})
    if params["as_json"]:
        typer.echo(json.dumps(asdict(exported), indent=1))
    else:
        show_exported(stdout(), exported)


def _quantized(values: Mapping[str, object], network: Network, target: Path) -> Quantized:
    """Write the int8 file of `target`, and score both on the search split of the images that `values` name."""
    spec = read_spec({**values, **_NO_SEARCH})
    with ProgressBars(stderr()) as bars:
        _, _, splits = load_splits(spec, network, bars)
    return quantized(target, splits, Scorer(splits.search, network.module))


def export_checked(module: fx.GraphModule, original: Network, target: Path, images: Tensor, *, opset: int) -> Exported:
    """Write `module` to `target` only if onnxruntime agrees with it on `images`, ``(n, C, H, W)``.

    Raises:
        ExportError: The file's outputs differ from the network's.
        CommandError: `target` cannot be written.

    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        cost, error = export_file(
            module, target, input_shape=original.input_shape, images=images, limits={}, opset=opset
        )
    except OSError as error_:
        raise CommandError(f"--output {target}: cannot write there ({error_.strerror})") from error_
    return Exported(
        str(target), cost, unpruned_cost(original), target.stat().st_size, file_sha256(target), error, len(images)
    )


def unpruned_cost(network: Network) -> dict[str, int]:
    """Return the cost of a network as it is."""
    return cost_model(network, find_groups(network), ()).cost(())


def show_exported(console: Console, exported: Exported) -> None:
    """Print what was checked."""
    console.print(f"[bold]{escape(exported.onnx)}[/]  ({exported.file_bytes:,} bytes)")
    for name in QUANTITIES:
        before, after = exported.cost_unpruned[name], exported.cost[name]
        label = wording.QUANTITY_LABELS[name]
        console.print(f"  {label:<13} {after:>15,}   {after / before:.1%} of {before:,}")
    error, images = exported.parity_error, exported.parity_images
    console.print(f"  parity        differs from PyTorch by at most {error:.1e} on {images} images")
    if exported.int8 is not None:
        _show_int8(console, exported.int8)


def _show_int8(console: Console, int8: Mapping[str, Any]) -> None:
    """Print what quantising cost."""
    console.print(f"[bold]{escape(int8['onnx'])}[/]  ({int8['file_bytes']:,} bytes)")
    measure = "top1" if int8["search"]["top1"] is not None else "agreement"
    label = {"top1": "top-1 accuracy", "agreement": "agreement with the unpruned network"}[measure]
    console.print(
        f"  {label}: {int8['search'][measure]:.2%}, float32 {int8['search_fp32'][measure]:.2%} "
        f"({int8['search']['images']:,} search images; calibrated on {int8['calibration_images']:,} fit images)"
    )


def _path(value: object) -> Path | None:
    """Return an optional path parameter."""
    return None if value is None else Path(str(value))
