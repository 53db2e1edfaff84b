"""What a job's ids stand for: the records, and the files as the pipeline takes them. Needs no torch."""

import os
from pathlib import Path

from autoprune.errors import AutopruneError
from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.settings import Settings
from autoprune.service.specs.amc_options import AGENT_ARTIFACT
from autoprune.service.specs.job_spec import JobSpec, Spec
from autoprune.service.specs.reading import SpecError
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import DatasetRow, ModelRow

#: Name of the dataset that is always there.
BUILTIN = "digits"


def resolve(spec: Spec, records: Records, store: FileStore, settings: Settings, job_id: str) -> Spec:
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
    if spec.amc.agent is not None:
        agent = _agent_link(spec.amc.agent, settings, job_id)
        values["amc"] = spec.amc.model_copy(update={"agent": agent})
    if spec.continue_from is not None:
        values["continue_from"] = _earlier_link(spec.continue_from, settings, job_id)
    return spec.model_copy(update=values)


def _link(store: FileStore, row: ModelRow | DatasetRow, job_folder: Path, field: str) -> str:
    """Make ``inputs/<field>/<name>`` a link to the row's file; return that path, relative to `job_folder`."""
    target = store.path(row.sha256, row.suffix)
    if not target.is_file():
        raise AutopruneError(f"the file of {field} {row.id} is no longer in the store; upload it again")
    name = row.name if row.name.lower().endswith(row.suffix) else f"{row.name}{row.suffix}"
    return _linked(target, job_folder, Path("inputs") / field / name)


def _agent_link(source: str, settings: Settings, job_id: str) -> str:
    """Make ``inputs/agent/<source>.safetensors`` a link to the agent that the job `source` left; return that path."""
    target = settings.artifact_folder(source) / AGENT_ARTIFACT
    if not target.is_file():
        raise AutopruneError(f"the agent of job {source} is gone; name another job, or search without an agent")
    return _linked(target, settings.job_folder(job_id), Path("inputs") / "agent" / f"{source}{target.suffix}")


def _earlier_link(source: str, settings: Settings, job_id: str) -> str:
    """Make ``inputs/continue_from/<source>`` a link to what the job `source` left; return that path."""
    target = settings.artifact_folder(source)
    if not (target / EVIDENCE).is_file():
        raise AutopruneError(f"the files of job {source} are gone; name another job, or leave continue_from out")
    return _linked(target, settings.job_folder(job_id), Path("inputs") / "continue_from" / source)


def _linked(target: Path, job_folder: Path, relative: Path) -> str:
    """Make `relative` in `job_folder` a link to `target`; return it as text."""
    link = job_folder / relative
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    os.symlink(target, link)
    return str(relative)


def check_agent(spec: JobSpec, records: Records) -> None:
    """Refuse an agent that is not one which a job of this service left: never a file of the server.

    Raises:
        SpecError: No such job, or one without an agent.

    """
    source = spec.amc.agent
    if source is None:
        return
    try:
        names = [artifact.name for artifact in records.artifacts(records.job(source).id)]
    except NotFoundError:
        names = []
    if AGENT_ARTIFACT not in names:
        expected = f"the id of a job that succeeded and left {AGENT_ARTIFACT}, see GET /v1/jobs"
        raise reference_error("amc.agent", expected, source)


def check_earlier(spec: JobSpec, records: Records) -> None:
    """Refuse to go on from what is no job of this service, or one whose evaluations cannot hold for `spec`.

    Raises:
        SpecError: No such job, one that has not searched, or one of another model, dataset or seed.

    """
    source = spec.continue_from
    if source is None:
        return
    try:
        row = records.job(source)
        names = [artifact.name for artifact in records.artifacts(row.id)]
    except NotFoundError:
        names = []
    if EVIDENCE not in names:
        expected = f"the id of a job that succeeded and left {EVIDENCE}, see GET /v1/jobs"
        raise reference_error("continue_from", expected, source)
    for field in ("model", "dataset", "seed", "reconstruction"):
        if getattr(spec, field) != row.spec[field]:
            expected = f"what job {source} had ({row.spec[field]}), or its evaluations do not hold here"
            raise reference_error(field, expected, getattr(spec, field))


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
