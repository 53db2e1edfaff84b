"""What a device is asked to measure for a network, and the folder that carries it there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoprune import __version__
from autoprune.costs.fused_units import FusedUnit, fused_units, structure_key
from autoprune.costs.sides import Counts
from autoprune.costs.table_request import pruned_units, table_request
from autoprune.costs.widths import MAX_RATIO, allowed_widths
from autoprune.errors import ModelError
from autoprune.files import file_sha256
from autoprune.formats.onnx_export import export_onnx
from autoprune.formats.onnx_int8 import quantize_onnx
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.latency_tables.kit import NETWORKS, RUNNER, WORK, write_runner
from autoprune.latency_tables.table import ALIGNMENT
from autoprune.latency_tables.work import WholeNetwork, Work
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune

README = "README.txt"

#: Random pruned networks that are measured whole beside the unpruned one.
RANDOM_NETWORKS = 9

#: Most that a random network loses of its groups on average, and how far single groups are from its average.
_MOST_RATIO, _SPREAD = 0.7, 0.2

#: Noise that a network measured whole in int8 is quantised with: which values it computes does not matter to its time.
_NOISE_IMAGES = 2

#: How often each random network is drawn, until one is new.
_DRAWS = 20

_README = """Latency kit of autoprune for {model}

It measures how long the layers of this network take on a device, at every width that pruning can give them, and some
pruned networks as a whole to tell how far sums of layers are from the truth. It takes about {minutes} min.

1. Copy this whole folder to the device: a phone (Termux), a Raspberry Pi, a Jetson, a server.
2. There, with Python 3.11 or newer:   python -m pip install numpy onnxruntime
3. Close what else runs, plug in power, and start:   python measure.pyz --device {device}
   Interrupted? The same command goes on where it stopped. `python measure.pyz --help` lists what can be chosen.
4. Bring latency-table.json back and run:   autoprune device import latency-table.json
5. Prune for the device:   autoprune search MODEL --data DATA --budget latency=50% --device {device}{int8}
"""


@dataclass(frozen=True, slots=True)
class KitOptions:
    """How a device is to measure.

    Attributes:
        device: Name of the device; None leaves it to the person there.
        threads: Threads within an operator.
        precision: Of weights and activations, ``fp32`` or ``int8``.
        time_budget_s: For everything together.
        networks: Random pruned networks measured whole beside the unpruned one.
        max_ratio: Most of a group that is removed in the narrowest units.
        include_residual: Whether residual streams may be pruned too.
        seed: Of the random networks.

    """

    device: str | None = None
    threads: int = 1
    precision: str = "fp32"
    time_budget_s: float = 600.0
    networks: int = RANDOM_NETWORKS
    max_ratio: float = MAX_RATIO
    include_residual: bool = True
    seed: int = 0


def pack_kit(network: Network, model: str, folder: Path, options: KitOptions) -> Work:
    """Write a kit into `folder`, which exists: runner, work, networks, and what to do with them.

    Args:
        network: The unpruned network.
        model: What its user calls it.
        folder: Where the kit goes; files of an older kit are replaced.
        options: How to measure.

    Raises:
        ModelError: Nothing in the network can be pruned.
        LatencyTableError: The network has a layer that latency tables do not know.
        OSError: The folder cannot be written.

    """
    work = device_work(network, folder, options)
    write_runner(folder / RUNNER, __version__)
    minutes = math.ceil(options.time_budget_s / 60)
    int8 = " --int8" if options.precision == "int8" else ""
    readme = _README.format(model=model, device=options.device or "my-phone", minutes=minutes, int8=int8)
    (folder / README).write_text(readme, encoding="utf-8")
    (folder / WORK).write_text(work.to_json(), encoding="utf-8")
    return work


def device_work(network: Network, folder: Path, options: KitOptions) -> Work:
    """Return what is to be measured for `network`; the networks to be measured whole are written into `folder`.

    Errors as of :func:`pack_kit`.
    """
    all_groups = find_groups(network)
    groups = all_groups.prunable(include_residual=options.include_residual)
    if not groups:
        raise ModelError("this network has no channel group that may be pruned, so a latency table is of no use for it")
    units = fused_units(network, all_groups)
    (folder / NETWORKS).mkdir(exist_ok=True)
    full = np.array([len(group) for group in groups], dtype=np.int64)
    plans = [full, *random_widths(groups, options)]
    return Work(
        device=options.device,
        grids=table_request(units, all_groups, max_ratio=options.max_ratio, include_residual=options.include_residual),
        networks=tuple(
            _whole_network(network, all_groups, groups, units, kept, folder / f"{NETWORKS}/{index:02d}.onnx", options)
            for index, kept in enumerate(plans)
        ),
        structure=structure_key(units),
        threads=options.threads,
        precision=options.precision,
        time_budget_s=options.time_budget_s,
        made_by=__version__,
    )


def random_widths(groups: Sequence[ChannelGroup], options: KitOptions) -> list[Counts]:
    """Return aligned kept counts of random networks, each ``(n_groups,)``, from hardly pruned to pruned hard.

    No two are alike and none is the unpruned network, so a network with few groups may have fewer than were asked for.
    """
    rng = np.random.default_rng(options.seed)
    choices = [allowed_widths(len(group), ALIGNMENT, options.max_ratio) for group in groups]
    found = {tuple(len(group) for group in groups): None}
    for draw in range(_DRAWS * options.networks):
        step = (draw % options.networks + rng.uniform()) / options.networks
        ratios = np.clip(_MOST_RATIO * step + rng.uniform(-_SPREAD, _SPREAD, len(groups)), 0.0, options.max_ratio)
        wanted = (1 - ratios) * [len(group) for group in groups]
        kept = tuple(int(widths[np.abs(widths - want).argmin()]) for widths, want in zip(choices, wanted, strict=True))
        if len(found) <= options.networks:
            found.setdefault(kept)
    return [np.array(kept, dtype=np.int64) for kept in found][1:]


def networks_only(work: Work) -> Work:
    """Return the same work without units: networks are timed, and no table is made."""
    return replace(work, grids=(), structure="")


def _whole_network(
    network: Network,
    all_groups: ChannelGroups,
    groups: Sequence[ChannelGroup],
    units: Sequence[FusedUnit],
    kept: Counts,
    path: Path,
    options: KitOptions,
) -> WholeNetwork:
    """Export one pruned network to `path`; which channels stay does not matter to its time."""
    plan = Plan(
        {group.name: tuple(range(count)) for group, count in zip(groups, kept.tolist(), strict=True)},
        network.fingerprint(),
    )
    export_onnx(prune(network, all_groups, plan), path, input_shape=network.input_shape)
    if options.precision == "int8":
        noise = np.random.default_rng(0).standard_normal((_NOISE_IMAGES, *network.input_shape)).astype(np.float32)
        quantize_onnx(path, path, noise)
    return WholeNetwork(
        f"{NETWORKS}/{path.name}",
        file_sha256(path),
        tuple(network.input_shape),
        pruned_units(units, groups, all_groups.n_units, kept),
    )
