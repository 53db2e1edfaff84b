"""The form for a new job: what somebody typed, what is wrong with it, and the job that it asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.datastructures import FormData, UploadFile

from autoprune.costs.budget import Budget
from autoprune.errors import (
    AutopruneError,
    BudgetError,
    DatasetError,
    LatencyTableError,
    ModelError,
    UnknownNameError,
)
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.engine.service import Service
from autoprune.service.rest.job_answers import submitted
from autoprune.service.rest.uploads import add_dataset, add_model
from autoprune.service.specs.job_spec import JobSpec, SpecError, read_as
from autoprune.service.storage.quota import Quota
from autoprune.service.storage.tables import JobRow

#: Fields of text, and what they hold at first.
FIRST = {
    "kind": "job",
    "model": "",
    "architecture": "",
    "dataset": "digits",
    "budget": "macs=50%",
    "device": "",
    "evaluations": "100",
    "finetune_epochs": "0",
    "seed": "0",
    "seeds": "3",
}

COMPARISON = "comparison"

_NUMBERS = ("evaluations", "finetune_epochs", "seed")

#: Longest number that is read as one.
_MOST_DIGITS = 20

#: Where an error is shown that no setting is named in: the first kind that it is of.
_FIELDS: Sequence[tuple[type[AutopruneError] | tuple[type[AutopruneError], ...], str]] = (
    (BudgetError, "budget"),
    ((LatencyTableError, UnknownNameError), "device"),
    (ModelError, "model"),
    (DatasetError, "dataset"),
)


@dataclass(frozen=True, slots=True)
class JobForm:
    """A form as it is shown.

    Attributes:
        values: Text of every field of :data:`FIRST`.
        policies: Those that are ticked.
        errors: What is wrong, by field; under an empty name what is wrong with all of it.

    """

    values: Mapping[str, str] = field(default_factory=lambda: dict(FIRST))
    policies: Sequence[str] = tuple(JobSpec.model_fields["policies"].default)
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, form: FormData) -> "JobForm":
        """Return what was typed."""
        values = {name: str(form.get(name, "")) for name in FIRST}
        return cls(values, tuple(str(name) for name in form.getlist("policies")))

    def wrong(self, name: str, error: AutopruneError | str) -> "JobForm":
        """Return the form with an error at a field; the first one there stands."""
        return self if name in self.errors else replace(self, errors={**self.errors, name: str(error)})

    def chosen(self, name: str, value: str) -> "JobForm":
        """Return the form with another value in a field."""
        return replace(self, values={**self.values, name: value})

    @property
    def is_comparison(self) -> bool:
        """Whether it asks for a comparison."""
        return self.values["kind"] == COMPARISON

    @property
    def settings(self) -> dict[str, Any]:
        """What it asks for, as settings of a job; what is no number stays text, for the spec to complain of."""
        numbers = (*_NUMBERS, "seeds") if self.is_comparison else _NUMBERS
        return {
            "model": self.values["model"],
            "dataset": self.values["dataset"],
            "budget": self.values["budget"],
            "device": self.values["device"] or None,
            "policies": self.policies,
            **{name: _number(self.values[name]) for name in numbers},
        }


def submit(service: Service, quota: Quota, form: FormData) -> JobRow | JobForm:
    """Take uploads and queue the job for the caller of a `quota`.

    Returns its record, or the form that says at each field what is wrong.

    Uploads that can be used are kept, and chosen in that form, so that nobody sends them twice.
    """
    typed = JobForm.of(form)
    model, dataset = form.get("model_file"), form.get("dataset_file")
    if isinstance(model, UploadFile) and model.filename:
        typed = _with_model(service, typed, model)
    elif not typed.values["model"]:
        typed = typed.wrong("model", "expected a model: choose one, or upload a file")
    if isinstance(dataset, UploadFile) and dataset.filename:
        typed = _with_dataset(service, typed, dataset)
    elif not typed.values["dataset"]:
        typed = typed.wrong("dataset", "expected images: choose a dataset, or upload a file")
    try:
        Budget.parse(typed.values["budget"])
    except AutopruneError as error:
        typed = typed.wrong("budget", error)
    if not typed.policies:
        typed = typed.wrong("policies", "expected at least one policy, found none; tick some")
    try:
        spec = read_as(ComparisonSpec if typed.is_comparison else JobSpec, typed.settings)
    except SpecError as error:
        return _with_problems(typed, error)
    return typed if typed.errors else _queued(service, quota, typed, spec)


def _with_model(service: Service, typed: JobForm, file: UploadFile) -> JobForm:
    """Receive a model and choose it."""
    try:
        row, _ = add_model(
            service.settings,
            service.records,
            service.store,
            file.file,
            file.filename or "",
            architecture=typed.values["architecture"] or None,
        )
    except AutopruneError as error:
        return typed.wrong("model", error)
    return typed.chosen("model", row.id)


def _with_dataset(service: Service, typed: JobForm, file: UploadFile) -> JobForm:
    """Receive a dataset and choose it."""
    try:
        row, _ = add_dataset(service.settings, service.records, service.store, file.file, file.filename or "")
    except AutopruneError as error:
        return typed.wrong("dataset", error)
    return typed.chosen("dataset", row.id)


def _queued(service: Service, quota: Quota, typed: JobForm, spec: JobSpec) -> JobRow | JobForm:
    """Queue a job, or say where it is wrong."""
    try:
        return submitted(service, quota, spec)[0]
    except SpecError as error:
        return _with_problems(typed, error)
    except AutopruneError as error:
        return typed.wrong(next((name for kind, name in _FIELDS if isinstance(error, kind)), ""), error)


def _with_problems(typed: JobForm, error: SpecError) -> JobForm:
    """Return the form with every wrong setting at its field."""
    for problem in error.problems:
        name = problem["where"].partition(".")[0]
        text = f"{problem['expected']} (found {problem['found']})"
        typed = typed.wrong(name, text) if name in FIRST or name == "policies" else typed.wrong("", f"{name}: {text}")
    return typed


def _number(text: str) -> int | str:
    """Read a whole number; what is none stays as it is."""
    stripped = text.strip()
    is_number = stripped.isascii() and stripped.isdecimal() and len(stripped) <= _MOST_DIGITS
    return int(stripped) if is_number else text
