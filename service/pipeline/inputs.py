"""What a job starts from: the network, the images in three splits, and the problem they pose."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from autoprune.costs.budget import Budget
from autoprune.criteria.applicability import check_data, check_network
from autoprune.criteria.catalog import find_criterion
from autoprune.criteria.data import criterion_data
from autoprune.datasets.dataset import (
    ImageDataset,
    Normalization,
    check_images,
    check_labels,
    default_normalization,
    parse_normalization,
)
from autoprune.datasets.load import load_dataset
from autoprune.datasets.splits import SearchSplits, Splits, make_splits, overlap
from autoprune.errors import ModelError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.precision import choose_precision, same_ranking
from autoprune.formats.load import load_network
from autoprune.groups.channel_group import find_groups
from autoprune.latency_tables.table import LatencyTable
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.network.memory import keep_freed_memory
from autoprune.network.network import Network
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.reconstruction.gram import IMAGES as STATISTICS_IMAGES
from autoprune.reconstruction.gram import GramStatistics, collect_grams
from autoprune.search.random_search import RandomSearch
from autoprune.service.devices.tables import find_table
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.progress import Progress

#: Search images when the user leaves the number open: more cost time, fewer make the scores noisy.
SEARCH_IMAGES = 2000

#: Images on which batch norm put back after import is measured.
BATCHNORM_IMAGES = 512


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a job computes with.

    Attributes:
        problem: The network, its groups and its budget.
        splits: Fit, search and report images.
        precision: ``"fp32"`` or ``"bf16"``, for evaluations.
        normalization: The constants applied to the images, as a user would write them.
        warnings: What the reader of the result should know about the inputs.
        latencies: The device's latency table; None where latency plays no part.

    """

    problem: PruningProblem
    splits: Splits
    precision: str
    normalization: str
    warnings: tuple[str, ...]
    latencies: LatencyTable | None = None


def load_inputs(
    spec: JobSpec,
    report: Callable[[Progress], None],
    check: Callable[[PruningProblem], None] = lambda problem: None,
) -> Inputs:
    """Load model and data, deal the splits, measure batch norm and set up the problem.

    Before any image is read `check` is called with the problem as far as it is known then.

    Raises:
        AutopruneError: Any part of the input cannot be used; says which, why and what to do.

    """
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    budget = Budget.parse(spec.budget)
    network = load_model_of(spec)
    fingerprint = network.fingerprint()
    latencies = device_table(spec)
    check(check_problem(network, budget, spec, latencies))
    dataset, normalization, splits = load_splits(spec, network, report)
    check_data(find_criterion(spec.criterion, "channel"), labels=splits.fit.labels is not None)
    measured = measure_batchnorm(network, splits.fit.inputs[:BATCHNORM_IMAGES])
    groups = find_groups(measured)
    statistics = None
    if spec.reconstruction:
        report(Progress(stage="load", done=0, total=0, message="statistics for reconstruction", policy=None))
        chosen = groups.prunable(include_residual=spec.include_residual)
        statistics = collect_grams(measured, chosen, splits.fit.inputs[:STATISTICS_IMAGES], seed=spec.seed)
    problem = pruning_problem(
        measured,
        budget,
        criterion=spec.criterion,
        round_to=spec.round_to,
        max_ratio=spec.max_ratio,
        include_residual=spec.include_residual,
        groups=groups,
        statistics=statistics,
        data=criterion_data(splits.fit, seed=spec.seed),
        latencies=latencies,
        model_sha256=fingerprint,
        opset=spec.opset,
    )
    warnings = [*_warnings(network, dataset, splits), *_statistics_warnings(statistics)]
    precision = choose_precision(spec.precision)
    if spec.precision == "auto" and precision == "bf16" and not ranks_alike(problem, splits.for_search()):
        warnings.append("bf16 ranked sample candidates otherwise than float32 does: evaluated in float32")
        precision = "fp32"
    return Inputs(problem, splits, precision, str(normalization), tuple(warnings), latencies)


def load_model_of(spec: JobSpec) -> Network:
    """Load the network of a job; errors as of :func:`autoprune.formats.load.load_network`."""
    return load_network(
        Path(spec.model) if Path(spec.model).suffix else spec.model,
        architecture=spec.architecture,
        num_classes=spec.num_classes,
        input_shape=spec.input_shape,
    )


def load_splits(
    spec: JobSpec, network: Network, report: Callable[[Progress], None]
) -> tuple[ImageDataset, Normalization, Splits]:
    """Load a job's images and deal them out; errors as of :func:`load_inputs`."""

    def decoded(done: int, total: int) -> None:
        report(Progress(stage="load", done=done, total=total, message="images decoded", policy=None))

    dataset = _dataset(spec.dataset, network, decoded)
    held_out = None if spec.report_dataset is None else _dataset(spec.report_dataset, network, decoded)
    named = None if spec.normalization is None else parse_normalization(spec.normalization)
    normalization = named or default_normalization(dataset)
    return dataset, normalization, _splits(spec, dataset, held_out, normalization)


def device_table(spec: JobSpec, home: Path | None = None) -> LatencyTable | None:
    """Return the table of a job's device in the precision that the job exports, or None where it names no device.

    Errors as of :func:`autoprune.service.devices.tables.find_table`.
    """
    if spec.device is None:
        return None
    return find_table(spec.device, home=home, precision="int8" if spec.int8 else "fp32")


def ranks_alike(problem: PruningProblem, splits: SearchSplits, samples: int = 4) -> bool:
    """Tell whether bf16 orders a few random candidates as float32 does; the same answer whenever asked."""
    searcher = RandomSearch(problem, seed=0)
    plans = [problem.plan(proposal.policy) for proposal in searcher.ask(samples)]
    scores = [
        [evaluator.evaluate(plan).objective for plan in plans]
        for evaluator in (Evaluator(problem, splits, precision=precision) for precision in ("fp32", "bf16"))
    ]
    return same_ranking(*scores)


def check_problem(network: Network, budget: Budget, spec: JobSpec, latencies: LatencyTable | None) -> PruningProblem:
    """Refuse what needs no data to be refused: an infeasible budget, nothing to prune, a criterion that cannot score.

    Returns the problem without what images would tell.

    Raises:
        AutopruneError: See :func:`autoprune.problem.pruning_problem`.

    """
    criterion, groups = find_criterion(spec.criterion, "channel"), find_groups(network)
    problem = pruning_problem(
        network,
        budget,
        criterion="l1" if criterion.measured else spec.criterion,
        round_to=spec.round_to,
        max_ratio=spec.max_ratio,
        include_residual=spec.include_residual,
        groups=groups,
        latencies=latencies,
        opset=spec.opset,
    )
    check_network(criterion, network, groups, groups.prunable(include_residual=spec.include_residual))
    return problem


def _statistics_warnings(statistics: GramStatistics | None) -> list[str]:
    """Say which layers are not reconstructed, or from too few samples."""
    if statistics is None:
        return []
    warnings = [f"layer {name!r} is not reconstructed: {why}" for name, why in statistics.unmeasured.items()]
    if statistics.underdetermined:
        named = ", ".join(statistics.underdetermined[:5])
        warnings.append(
            f"{len(statistics.underdetermined)} layers ({named}) have more inputs than there are samples: where the "
            "images do not decide, their weights stay; give more fit images"
        )
    return warnings


def _dataset(source: str, network: Network, progress: Callable[[int, int], None]) -> ImageDataset:
    """Load images as the network takes them."""
    if len(network.output_shape) != 1:
        raise ModelError(
            f"expected a classifier (one row of class scores per image), found output shape {network.output_shape}; "
            "inspect and prune work on such a network, a search needs scores it does not have"
        )
    dataset = load_dataset(source, input_shape=network.input_shape, progress=progress)
    check_images(dataset, network.input_shape)
    check_labels(dataset, network.output_shape[0])
    return dataset


def _splits(
    spec: JobSpec, dataset: ImageDataset, held_out: ImageDataset | None, normalization: Normalization
) -> Splits:
    """Deal the images out."""
    return make_splits(
        dataset,
        report_dataset=held_out,
        fit_images=spec.fit_images,
        search_images=search_images(spec, len(dataset)),
        report_images=spec.report_images,
        seed=spec.seed,
        normalization=normalization,
    )


def search_images(spec: JobSpec, images: int) -> int | None:
    """Return how many of so many images a job searches with; None where it takes its share of them."""
    bounded = spec.search_images is None and images > 8 * SEARCH_IMAGES
    return SEARCH_IMAGES if bounded else spec.search_images


def _warnings(network: Network, dataset: ImageDataset, splits: Splits) -> list[str]:
    """Say what makes the figures less than they seem."""
    warnings = []
    for split in (splits.fit, splits.search):
        doubled = overlap(split, splits.report)
        if doubled:
            warnings.append(
                f"{doubled} of {len(splits.report)} report images also occur in the {split.name} split, pixel for pixel"
            )
    if splits.search.labels is None:
        warnings.append("no labels: quality is agreement with the unpruned network, not accuracy")
    elif dataset.labels is not None:
        classes, outputs = len(dataset.class_names), network.output_shape[0]
        if classes < outputs:
            warnings.append(
                f"the images have {classes} classes, the network tells {outputs} apart: its first "
                f"{classes} are taken, in alphabetical order of the folders; add the other folders if that is wrong"
            )
    return warnings


def quality_warnings(unpruned: Scores, classes: int) -> list[str]:
    """Say what the unpruned network's scores on the search split tell about all figures."""
    if unpruned.top1 is None:
        return []
    warnings, chance = [], 1 / classes
    if unpruned.top1 < 2 * chance:
        warnings.append(
            f"the unpruned network is right on {unpruned.top1:.1%} of the search images, hardly more than chance "
            f"({chance:.1%}): check normalisation, class order and that the model is trained"
        )
    if unpruned.images < SEARCH_IMAGES // 2:
        noise = 2 * math.sqrt(max(unpruned.top1 * (1 - unpruned.top1), 0.05) / unpruned.images)
        warnings.append(
            f"only {unpruned.images} search images: candidates that differ by less than "
            f"{100 * noise:.1f} points cannot be told apart"
        )
    return warnings
