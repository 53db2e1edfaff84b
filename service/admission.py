"""Which jobs are accepted: whatever can be refused without computing is refused before the job is queued."""

import os
from pathlib import Path

from autoprune.costs.budget import Budget
from autoprune.datasets.dataset import parse_normalization
from autoprune.errors import AutopruneError, DatasetError, ModelError
from autoprune.service.inputs import check_problem
from autoprune.service.records import NotFoundError, Records
from autoprune.service.settings import Settings
from autoprune.service.spec import JobSpec, SpecError
from autoprune.service.store import FileStore
from autoprune.service.tables import DatasetRow, ModelRow
from autoprune.service.uploads import builtin_dataset, load_stored
from autoprune.service.views import DatasetView

BUILTIN = "digits"


def check_job(spec: JobSpec, records: Records, store: FileStore) -> None:
    """Refuse a job that could not succeed.

    Raises:
        SpecError: A model or dataset that is not there, or settings that contradict the model's record.
        AutopruneError: An infeasible budget, nothing to prune, images or labels that do not fit the network.

    """
    model = _model(spec, records)
    dataset = _dataset("dataset", spec.dataset, records)
    held_out = None if spec.report_dataset is None else _dataset("report_dataset", spec.report_dataset, records)
    budget = Budget.parse(spec.budget)
    if spec.normalization is not None:
        parse_normalization(spec.normalization)
    for view in (dataset, held_out):
        if view is not None:
            _check_fit(model, view)
    _check_sizes(spec, dataset, held_out)
    check_problem(load_stored(model, store.path(model.sha256, model.suffix)), budget, spec)


def resolve(spec: JobSpec, records: Records, store: FileStore, settings: Settings, job_id: str) -> JobSpec:
    """Return the spec as the pipeline takes it: paths relative to the job's folder in place of ids.

    The paths are links to the store that carry the uploaded files' names, so that results and messages speak of those.

    Raises:
        AutopruneError: A record or its file is gone.

    """
    model = _model(spec, records)
    shape = model.zoo_input_shape
    values: dict[str, object] = {
        "model": _link(store, model, settings.job_folder(job_id), "model"),
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "input_shape": None if shape is None else (shape[0], shape[1], shape[2]),
    }
    for field in ("dataset", "report_dataset"):
        name = getattr(spec, field)
        if name is not None and name != BUILTIN:
            values[field] = _link(store, records.find(DatasetRow, name), settings.job_folder(job_id), field)
    return spec.model_copy(update=values)


def _link(store: FileStore, row: ModelRow | DatasetRow, job_folder: Path, field: str) -> str:
    """Make ``inputs/<field>/<name>`` a link to the row's file; return that path, relative to `job_folder`."""
    target = store.path(row.sha256, row.suffix)
    if not target.is_file():
        raise AutopruneError(f"the file of {field} {row.id} is no longer in the store; upload it again")
    name = row.name if row.name.lower().endswith(row.suffix) else f"{row.name}{row.suffix}"
    relative = Path("inputs") / field / name
    link = job_folder / relative
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    os.symlink(target, link)
    return str(relative)


def _model(spec: JobSpec, records: Records) -> ModelRow:
    """Find the model of a job; its record says already what architecture it is."""
    try:
        row = records.find(ModelRow, spec.model)
    except NotFoundError as error:
        raise _reference_error("model", "the id of an uploaded model, see GET /v1/models", spec.model) from error
    shape = None if spec.input_shape is None else list(spec.input_shape)
    for field, asked, known in (
        ("architecture", spec.architecture, row.architecture),
        ("num_classes", spec.num_classes, row.num_classes),
        ("input_shape", shape, row.zoo_input_shape),
    ):
        if asked is not None and asked != known:
            raise _reference_error(field, f"what the model was uploaded as ({known}), or nothing", asked)
    return row


def _dataset(field: str, name: str, records: Records) -> DatasetView:
    """Find a dataset of a job."""
    if name == BUILTIN:
        return builtin_dataset()
    try:
        return DatasetView.of(records.find(DatasetRow, name))
    except NotFoundError as error:
        expected = f"{BUILTIN!r} or the id of an uploaded dataset, see GET /v1/datasets"
        raise _reference_error(field, expected, name) from error


def _reference_error(where: str, expected: str, found: object) -> SpecError:
    """Say which part of a spec names something that is not there."""
    return SpecError([{"where": where, "expected": f"expected {expected}", "found": ascii(found)[:100]}])


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
