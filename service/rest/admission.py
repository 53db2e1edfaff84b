"""Which jobs are accepted: whatever can be refused without computing is refused before the job is queued."""

from pathlib import Path

from autoprune.costs.budget import Budget
from autoprune.datasets.dataset import parse_normalization
from autoprune.errors import DatasetError, ModelError
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.table import LatencyTable
from autoprune.service.engine.job_inputs import BUILTIN, check_agent, check_earlier, model_of, reference_error
from autoprune.service.pipeline.inputs import check_problem, device_table
from autoprune.service.pipeline.searchers import check_log
from autoprune.service.rest.uploads import builtin_dataset, load_stored
from autoprune.service.rest.views import DatasetView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import NotFoundError, Records
from autoprune.service.storage.tables import DatasetRow, ModelRow


def check_job(spec: JobSpec, records: Records, store: FileStore, home: Path) -> None:
    """Refuse a job that could not succeed; latency tables are those of the service's `home`.

    Raises:
        SpecError: A model, dataset, agent or earlier job that is not there, or settings that contradict its record.
        AutopruneError: An infeasible budget, nothing to prune, images or labels that do not fit the network,
            a log for TensorBoard where that is not installed.

    """
    model = model_of(spec, records)
    dataset = _dataset("dataset", spec.dataset, records)
    held_out = None if spec.report_dataset is None else _dataset("report_dataset", spec.report_dataset, records)
    check_agent(spec, records)
    check_earlier(spec, records)
    check_log(spec)
    budget = Budget.parse(spec.budget)
    if spec.normalization is not None:
        parse_normalization(spec.normalization)
    for view in (dataset, held_out):
        if view is not None:
            _check_fit(model, view)
    _check_sizes(spec, dataset, held_out)
    check_problem(load_stored(model, store.path(model.sha256, model.suffix)), budget, spec, _latencies(spec, home))


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


def _check_sizes(spec: JobSpec, dataset: DatasetView, held_out: DatasetView | None) -> None:
    """Refuse splits that ask for more images than there are; a split left open needs at least one."""
    asked = [spec.fit_images, spec.search_images]
    if held_out is None:
        asked.append(spec.report_images)
    elif spec.report_images is not None and spec.report_images > held_out.images:
        raise DatasetError(
            f"{held_out.name}: {spec.report_images:,} report images were asked for, it has {held_out.images:,}"
        )
    needed = sum(size or 1 for size in asked)
    if needed > dataset.images:
        raise DatasetError(
            f"{dataset.name}: the splits need {needed:,} images at least, it has {dataset.images:,}; ask for less"
        )
