"""The command ``inspect``: what can be pruned, and how far."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from autoprune.costs.budget import Budget
from autoprune.costs.quantities import shown
from autoprune.errors import BudgetError, InfeasibleBudgetError, UnknownNameError
from autoprune.formats.load import load_network
from autoprune.groups.channel_group import find_groups
from autoprune.latency_tables.table import LatencyTable
from autoprune.network.network import Network
from autoprune.problem import widths_and_costs
from autoprune.service.cli.console import groups_table, stdout
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.devices.tables import find_table
from autoprune.service.pipeline.inspection import group_views
from autoprune.service.results import wording
from autoprune.service.results.job_result import GroupView
from autoprune.zoo.registry import ARCHITECTURES, build


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a network is made of, and how small it can become.

    Attributes:
        model: What the user called it.
        input_shape: One image, ``(C, H, W)``.
        output_shape: One answer, without the batch.
        cost: Cost of the unpruned network.
        smallest: Smallest reachable cost under the settings.
        groups: Every channel group.
        searched: Names of the groups that a search would decide on.

    """

    model: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    cost: dict[str, int]
    smallest: dict[str, int]
    groups: list[GroupView]
    searched: list[str]

    def to_dict(self) -> dict[str, object]:
        """Return the inspection as JSON-ready data."""
        return {
            "format": "autoprune-inspection/1",
            "model": self.model,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "cost": self.cost,
            "smallest": self.smallest,
            "groups": [group.model_dump() for group in self.groups],
            "decision_groups": self.searched,
        }


def run_inspect(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: The model cannot be loaded, settings are out of range, or the budget cannot be reached.

    """
    values = spec_values(params)
    round_to, max_ratio = int(str(values["round_to"])), float(str(values["max_ratio"]))
    if round_to < 1:
        raise BudgetError(f"--round-to must be a whole number of channels, at least 1, found {round_to}")
    if not 0 < max_ratio < 1:
        raise BudgetError(f"--max-ratio must lie between 0 and 1, found {max_ratio}")
    precision = "int8" if values["int8"] else "fp32"
    network = load_model(values)
    inspection = inspect_network(
        network,
        str(values["model"]),
        include_residual=bool(values["include_residual"]),
        round_to=round_to,
        max_ratio=max_ratio,
        latencies=None if values["device"] is None else find_table(str(values["device"]), precision=precision),
    )
    budget = values["budget"]
    refusal, limits = (None, None) if budget is None else check_budget(inspection, str(budget))
    if params["as_json"]:
        verdict = {"text": budget, "limits": limits, "feasible": refusal is None, "reason": refusal and str(refusal)}
        typer.echo(json.dumps({**inspection.to_dict(), "budget": None if budget is None else verdict}, indent=1))
    else:
        _show(stdout(), inspection)
        if limits is not None:
            kept = ", ".join(f"{name} at most {shown(name, most)}" for name, most in limits.items())
            stdout().print(f"[green]budget {escape(str(budget))} can be reached:[/] {kept}")
    if refusal is not None:
        raise refusal


def load_model(values: Mapping[str, object]) -> Network:
    """Load the network that a command's settings name; an architecture of the zoo needs no weights to be looked at.

    Raises:
        AutopruneError: See :func:`autoprune.formats.load.load_network`.

    """
    model, sizes = str(values["model"]), values["input_shape"]
    architecture = None if values["architecture"] is None else str(values["architecture"])
    classes = None if values["num_classes"] is None else int(str(values["num_classes"]))
    shape = tuple(int(size) for size in sizes) if isinstance(sizes, tuple) else None
    if model in ARCHITECTURES and architecture is None:
        return build(model, num_classes=classes, input_shape=shape)
    if not Path(model).suffix and not Path(model).exists():
        raise UnknownNameError("model file or architecture", model, ARCHITECTURES)
    return load_network(model, architecture=architecture, num_classes=classes, input_shape=shape)


def inspect_network(
    network: Network,
    model: str,
    *,
    include_residual: bool = False,
    round_to: int = 1,
    max_ratio: float = 0.9,
    latencies: LatencyTable | None = None,
) -> Inspection:
    """Find all groups of `network` and the smallest cost a search could reach; latency too with a device's table.

    Raises:
        LatencyTableError: The table does not know this network, or not well enough.
        BudgetError: `round_to` or `max_ratio` out of range.

    """
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=include_residual)
    widths, costs = widths_and_costs(
        network, groups, chosen, round_to=round_to, max_ratio=max_ratio, latencies=latencies
    )
    smallest = costs.cost([int(width[0]) for width in widths])
    return Inspection(
        model,
        network.input_shape,
        network.output_shape,
        costs.cost(costs.full()),
        smallest,
        group_views(network, groups),
        [group.name for group in chosen],
    )


def check_budget(inspection: Inspection, text: str) -> tuple[BudgetError | None, dict[str, int] | None]:
    """Return why a budget cannot be reached (or None) and its absolute limits (or None).

    Raises:
        BudgetError: The budget is malformed or already held by the unpruned network.

    """
    try:
        return None, Budget.parse(text).resolve(inspection.cost, inspection.smallest)
    except InfeasibleBudgetError as error:
        return error, None


def _show(console: Console, inspection: Inspection) -> None:
    """Print an inspection for people."""
    shape = "x".join(map(str, inspection.input_shape))
    outputs = "x".join(map(str, inspection.output_shape))
    console.print(f"[bold]{escape(inspection.model)}[/]  input {shape}, output {outputs}\n")
    console.print(groups_table(inspection.groups, set(inspection.searched)))
    console.print("[dim]shares: what hangs on a group's channels; neighbours share layers, so they overlap[/]\n")
    count = len(inspection.searched)
    console.print(f"{count} of {len(inspection.groups)} groups can be pruned with these settings")
    for name, full in inspection.cost.items():
        least = inspection.smallest[name]
        share = f"{least / full:.1%}" if full else "-"
        label = wording.QUANTITY_LABELS[name]
        console.print(f"  {label:<13} {shown(name, full):>15}   smallest reachable {shown(name, least):>15}  ({share})")
