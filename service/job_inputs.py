"""What a job's ids stand for: the records, and the files as the pipeline takes them. Needs no torch."""

import os
from pathlib import Path

from autoprune.errors import AutopruneError
from autoprune.service.records import NotFoundError, Records
from autoprune.service.settings import Settings
from autoprune.service.spec import JobSpec, SpecError
from autoprune.service.store import FileStore
from autoprune.service.tables import DatasetRow, ModelRow

#: Name of the dataset that is always there.
BUILTIN = "digits"


def resolve(spec: JobSpec, records: Records, store: FileStore, settings: Settings, job_id: str) -> JobSpec:
    """Return the spec as the pipeline takes it: paths relative to the job's folder in place of ids.

    The paths are links to the store that carry the uploaded files' names, so that results and messages speak of those.

    Raises:
        AutopruneError: A record or its file is gone.

    """
    model = model_of(spec, records)
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


def model_of(spec: JobSpec, records: Records) -> ModelRow:
    """Return the model of a job; its record says already what architecture it is.

    Raises:
        SpecError: No such model, or the spec contradicts its record.

    """
    try:
        row = records.find(ModelRow, spec.model)
    except NotFoundError as error:
        raise reference_error("model", "the id of an uploaded model, see GET /v1/models", spec.model) from error
    shape = None if spec.input_shape is None else list(spec.input_shape)
    for field, asked, known in (
        ("architecture", spec.architecture, row.architecture),
        ("num_classes", spec.num_classes, row.num_classes),
        ("input_shape", shape, row.zoo_input_shape),
    ):
        if asked is not None and asked != known:
            raise reference_error(field, f"what the model was uploaded as ({known}), or nothing", asked)
    return row


def reference_error(where: str, expected: str, found: object) -> SpecError:
    """Return the error that says which part of a spec names something that is not there."""
    return SpecError([{"where": where, "expected": f"expected {expected}", "found": ascii(found)[:100]}])
