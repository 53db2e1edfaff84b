"""What a study works with: the network, its groups and the images; and which studies cannot succeed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from autoprune.criteria.applicability import check_data, check_network
from autoprune.criteria.catalog import OBS, find_criterion
from autoprune.criteria.data import CriterionData, criterion_data
from autoprune.datasets.splits import Splits
from autoprune.errors import DatasetError, ModelError, UnknownNameError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.network.memory import keep_freed_memory
from autoprune.network.network import Network
from autoprune.reconstruction.gram import IMAGES, GramStatistics, collect_grams
from autoprune.service.pipeline.inputs import BATCHNORM_IMAGES, load_model_of, load_splits
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.study_spec import StudySpec


@dataclass(frozen=True, slots=True)
class StudyInputs:
    """What a study works with.

    Attributes:
        network: With batch norm measured where a file had it folded.
        sha256: Fingerprint of the network as loaded.
        groups: All its groups.
        chosen: Those that are studied.
        splits: Fit and search images; a study has no use for the others.
        data: What criteria see.

    """

    network: Network
    sha256: str
    groups: ChannelGroups
    chosen: tuple[ChannelGroup, ...]
    splits: Splits
    data: CriterionData

    def statistics(self, seed: int) -> GramStatistics:
        """Collect Gram matrices of the layers behind the chosen groups."""
        return collect_grams(self.network, self.chosen, self.splits.fit.inputs[:IMAGES], seed=seed)


def load_study_inputs(spec: StudySpec, report: Callable[[Progress], None]) -> StudyInputs:
    """Load the model and the images of a study, and refuse one that cannot succeed.

    Raises:
        AutopruneError: Any part of the input cannot be used; says which, why and what to do.

    """
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    job = spec.inputs()
    network = load_model_of(job)
    check_study(spec, network, labels=None)
    _, _, splits = load_splits(job, network, report)
    check_study(spec, network, labels=splits.fit.labels is not None)
    measured = measure_batchnorm(network, splits.fit.inputs[:BATCHNORM_IMAGES])
    groups = find_groups(measured)
    chosen = _chosen(spec, groups)
    data = criterion_data(splits.fit, seed=spec.seed)
    return StudyInputs(measured, network.fingerprint(), groups, chosen, splits, data)


def check_study(spec: StudySpec, network: Network, *, labels: bool | None) -> None:
    """Refuse a study that could not succeed; None for `labels` where that is not known yet.

    Raises:
        ModelError: Nothing can be pruned.
        UnknownNameError: No such group.
        CriterionError: A criterion that cannot score the network, or not without labels.
        DatasetError: A study that needs labels, without.

    """
    groups = find_groups(network)
    chosen = _chosen(spec, groups)
    if labels is False and spec.study != "sensitivity":
        raise DatasetError(
            f"study {spec.study!r} is about the loss, which needs labels; the images have none. Give images in one "
            "folder per class, or choose study 'sensitivity'"
        )
    for name in _asked_criteria(spec):
        criterion = find_criterion(name, "channel")
        if name != OBS:
            check_network(criterion, network, groups, chosen)
        if labels is not None:
            check_data(criterion, labels=labels)


def _asked_criteria(spec: StudySpec) -> Sequence[str]:
    """Return the criteria that a study cannot do without."""
    if spec.study == "oracle":
        return spec.oracle.criteria or ()
    return (spec.sensitivity.criterion if spec.study == "sensitivity" else spec.schedule.criterion,)


def _chosen(spec: StudySpec, groups: ChannelGroups) -> tuple[ChannelGroup, ...]:
    """Return the groups that a study is about.

    Raises:
        ModelError: There are none.
        UnknownNameError: One that cannot be pruned.

    """
    prunable = groups.prunable(include_residual=spec.include_residual)
    if not prunable:
        raise ModelError("this network has no channel group that may be pruned; autoprune inspect says why")
    wanted = spec.sensitivity.groups if spec.study == "sensitivity" else None
    by_name = {group.name: group for group in prunable}
    for name in wanted or ():
        if name not in by_name:
            raise UnknownNameError("group that can be pruned", name, by_name)
    return prunable if wanted is None else tuple(group for group in prunable if group.name in wanted)
