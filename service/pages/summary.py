"""One job, comparison or study as lists and pages head it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from autoprune.service.engine.service import Service
from autoprune.service.rest.job_answers import ADDRESSES
from autoprune.service.rest.views import JobView
from autoprune.service.results.stages import stage_name
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.states import JobKind
from autoprune.service.storage.tables import DatasetRow, JobRow, ModelRow

#: Jobs and comparisons that are listed.
MOST = 50


@dataclass(frozen=True, slots=True)
class Summary:
    """A job or comparison.

    Attributes:
        job: Its record.
        kind: What it runs.
        model: Name of its model, or the id where there is no such model.
        dataset: The same of its dataset.

    """

    job: JobView
    kind: JobKind
    model: str
    dataset: str

    @property
    def folder(self) -> str:
        """Part of addresses: which kind of job it is."""
        return ADDRESSES[self.kind]

    @property
    def how(self) -> str:
        """What joins its model to :attr:`what`."""
        return "studied:" if self.kind is JobKind.STUDY else "within"

    @property
    def what(self) -> str:
        """What its model may cost, or which study it is."""
        return str(self.job.spec["study" if self.kind is JobKind.STUDY else "budget"])

    @property
    def address(self) -> str:
        """Address of its page."""
        return f"/{self.folder}/{self.job.id}"

    @property
    def files(self) -> str:
        """Address of the folder of its artifacts."""
        return f"/v1{self.address}/artifacts"

    @property
    def about(self) -> str:
        """What kind of job it is, on which images, and who searches."""
        spec = self.job.spec
        if self.kind is JobKind.STUDY:
            return f"Study on {self.dataset}"
        what = "Search" if self.kind is JobKind.SEARCH else f"Comparison over {spec['seeds']} seeds"
        return f"{what} on {self.dataset}: {', '.join(spec['policies'])}"

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.job.state.is_final

    @property
    def stage(self) -> str:
        """What it does now, in words."""
        if self.job.progress is None or self.is_final:
            return ""
        return stage_name(self.job.progress)

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        started, finished = self.job.started_at, self.job.finished_at
        return None if started is None or finished is None else (finished - started).total_seconds()


def summaries(service: Service) -> list[Summary]:
    """Return the newest jobs and comparisons, newest first."""
    models, datasets = service.records.all(ModelRow), service.records.all(DatasetRow)
    names = {row.id: row.name for row in models} | {row.id: row.name for row in datasets}
    return [_summary(row, names) for row in service.records.jobs(limit=MOST)]


def summary(service: Service, row: JobRow) -> Summary:
    """Return one job or comparison."""
    names = {}
    with suppress(NotFoundError):
        names[row.spec["model"]] = service.records.find(ModelRow, row.spec["model"]).name
    with suppress(NotFoundError):  # the built-in dataset has no record
        names[row.spec["dataset"]] = service.records.find(DatasetRow, row.spec["dataset"]).name
    return _summary(row, names)


def _summary(row: JobRow, names: Mapping[str, str]) -> Summary:
    """Name what a job works on."""
    model, dataset = (names.get(row.spec[field], str(row.spec[field])) for field in ("model", "dataset"))
    return Summary(JobView.of(row), JobKind(row.kind), model, dataset)
