"""Which jobs are accepted: whatever can be refused without computing is refused before the job is queued."""

from pathlib import Path

from autoprune.costs.budget import Budget
from autoprune.criteria.applicability import check_data
from autoprune.criteria.catalog import find_criterion
from autoprune.datasets.dataset import parse_normalization
from autoprune.datasets.splits import split_sizes
from autoprune.errors import DatasetError, ModelError, SearchError
from autoprune.evaluation.recalibration import FEWEST_IMAGES
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.table import LatencyTable
from autoprune.service.engine.job_inputs import BUILTIN, check_agent, check_earlier, model_of, reference_error
from autoprune.service.pipeline.inputs import check_problem, device_table, search_images
from autoprune.service.pipeline.searchers import check_policies
from autoprune.service.rest.uploads import builtin_dataset, load_stored
from autoprune.service.rest.views import DatasetView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import DatasetRow, ModelRow
from autoprune.service.studies.inputs import check_study


def check_job(spec: JobSpec, records: Records, store: FileStore, home: Path) -> None:
    """Refuse a job that could not succeed; latency tables are those of the service's `home`.

    Raises:
        SpecError: A model, dataset, agent or earlier job that is not there, or settings that contradict its record.
        AutopruneError: An infeasible budget, nothing to prune, images, labels or a normalization that do not fit the
            network, too few images, a criterion that cannot score it, what a policy cannot search with.

    """
    model, dataset = _checked_inputs(spec, records)
    check_agent(spec, records)
    check_earlier(spec, records)
    budget = Budget.parse(spec.budget)
    check_data(find_criterion(spec.criterion, "channel"), labels=dataset.classes is not None)
    network = load_stored(model, store.path(model.sha256, model.suffix))
    check_policies(spec, check_problem(network, budget, spec, _latencies(spec, home)))


def check_study_job(spec: StudySpec, records: Records, store: FileStore) -> None:
    """Refuse a study that could not succeed.

    Raises:
        SpecError: A model or dataset that is not there, or settings that contradict its record.
        AutopruneError: Nothing to prune, no such group, images, labels or a normalization that do not fit the
            network, too few images, a criterion that cannot score it.

    """
    model, dataset = _checked_inputs(spec.inputs(), records)
    network = load_stored(model, store.path(model.sha256, model.suffix))
    check_study(spec, network, labels=dataset.classes is not None)


def _checked_inputs(spec: JobSpec, records: Records) -> tuple[ModelRow, DatasetView]:
    """Find model and images of a job, and refuse what does not fit together."""
    model = model_of(spec, records)
    dataset = _dataset("dataset", spec.dataset, records)
    held_out = None if spec.report_dataset is None else _dataset("report_dataset", spec.report_dataset, records)
    _check_fit(model, dataset)
    if held_out is not None:
        _check_fit(model, held_out)
        _check_held_out(dataset, held_out)
    _check_normalization(spec, model)
    _check_sizes(spec, dataset, held_out)
    return model, dataset


def _latencies(spec: JobSpec, home: Path) -> LatencyTable | None:
    """Find the latency table of a job; a name, never a file of the server."""
    if spec.device is None:
        return None
    check_device(spec.device)
    return device_table(spec, home)


def _dataset(field: str, name: str, records: Records) -> DatasetView:
    """Find a dataset of a job."""
    if name == BUILTIN:
        return builtin_dataset()
    try:
        return DatasetView.of(records.find(DatasetRow, name))
    except NotFoundError as error:
        expected = f"{BUILTIN!r} or the id of an uploaded dataset, see GET /v1/datasets"
        raise reference_error(field, expected, name) from error


def _check_fit(model: ModelRow, dataset: DatasetView) -> None:
    """Refuse labels and images that the network has no outputs or inputs for."""
    outputs, image = model.facts["output_shape"], model.facts["input_shape"]
    if len(outputs) != 1:
        raise ModelError(
            f"{model.name}: expected a classifier (one row of class scores per image), found output shape {outputs}"
        )
    if dataset.classes is not None and dataset.classes > outputs[0]:
        raise DatasetError(
            f"{dataset.name}: the network tells {outputs[0]} classes apart, the dataset has {dataset.classes}; "
            "use the classes the network was trained on, or leave the labels out"
        )
    if dataset.image_shape is not None and sorted(dataset.image_shape) != sorted(image):  # order: see load_npz
        raise DatasetError(
            f"{dataset.name}: expected images of shape {image} (channels, height, width), the network's input; "
            f"found {dataset.image_shape}; arrays are never resized"
        )


def _check_held_out(dataset: DatasetView, held_out: DatasetView) -> None:
    """Refuse report images that figures on the others would say nothing about, as far as the records tell."""
    if dataset.classes is not None and held_out.classes is None:
        raise DatasetError(
            f"report_dataset: {held_out.name} has no labels, {dataset.name} has; add them, or leave both without"
        )
    ours, theirs = dataset.class_names or [], held_out.class_names or []
    if ours and ours[: len(theirs)] != theirs[: len(ours)]:
        raise DatasetError(
            f"report_dataset: expected the classes of {dataset.name} in their order, {', '.join(ours[:12])}; found "
            f"{', '.join(theirs[:12])} in {held_out.name}"
        )
    if None not in (dataset.dtype, held_out.dtype) and dataset.dtype != held_out.dtype:
        raise DatasetError(
            f"report_dataset: expected values of {dataset.dtype}, as in {dataset.name}; found {held_out.dtype} in "
            f"{held_out.name}; prepare both the same way"
        )


def _check_normalization(spec: JobSpec, model: ModelRow) -> None:
    """Refuse constants for another number of channels."""
    if spec.normalization is None:
        return
    given, channels = len(parse_normalization(spec.normalization).mean), model.facts["input_shape"][0]
    if given not in (0, channels):
        raise DatasetError(
            f"normalization: expected {channels} mean(s) and standard deviation(s), one per channel of the network's "
            f"input, or 'none'; found {given} of each"
        )


def _check_sizes(spec: JobSpec, dataset: DatasetView, held_out: DatasetView | None) -> None:
    """Refuse splits that ask for more images than there are, or that leave too few to work with."""
    asked = {"fit": spec.fit_images, "search": search_images(spec, dataset.images)}
    if held_out is None:
        asked["report"] = spec.report_images
    elif spec.report_images is not None and spec.report_images > held_out.images:
        raise DatasetError(
            f"{held_out.name}: {spec.report_images:,} report images were asked for, it has {held_out.images:,}"
        )
    fit, search, *_ = split_sizes(asked, dataset.images, dataset.name)
    if fit < FEWEST_IMAGES:
        raise DatasetError(
            f"{dataset.name}: expected at least {FEWEST_IMAGES} fit images, which batch norm is measured on; found "
            f"{fit} of them; ask for more (fit_images), or add images"
        )
    if spec.screening_images is not None and spec.screening_images >= search:
        raise SearchError(
            f"screening_images: expected fewer than the {search:,} search images, found {spec.screening_images:,}; "
            "screen on fewer, or leave it out"
        )
