"""The form for a new job: what somebody typed, what is wrong with it, and the job that it asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.datastructures import FormData, UploadFile

from autoprune.costs.budget import Budget
from autoprune.criteria.catalog import OBS
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
from autoprune.service.rest.uploads import add_dataset, add_model, shape_of
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.reading import SpecError, read_as
from autoprune.service.storage.quota import Quota
from autoprune.service.storage.tables import JobRow

#: Fields of text, and what they hold at first.
FIRST = {
    "kind": "job",
    "model": "",
    "architecture": "",
    "num_classes": "",
    "input_shape": "",
    "dataset": "digits",
    "report_dataset": "",
    "normalization": "",
    "criterion": OBS,
    "budget": "macs=50%",
    "device": "",
    "evaluations": "100",
    "finetune_epochs": "0",
    "seed": "0",
    "seeds": "3",
}

COMPARISON = "comparison"

#: Settings that are on or off.
FLAGS = ("include_residual", "int8")

#: Where a file is uploaded, and the field that it is chosen in then.
_DATASETS = {"dataset_file": "dataset", "report_dataset_file": "report_dataset"}

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
        flags: Those of :data:`FLAGS` that are ticked.
        errors: What is wrong, by field; under an empty name what is wrong with all of it.

    """

    values: Mapping[str, str] = field(default_factory=lambda: dict(FIRST))
    policies: Sequence[str] = tuple(JobSpec.model_fields["policies"].default)
    flags: Sequence[str] = ()
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, form: FormData) -> "JobForm":
        """Return what was typed; a field that was not sent is as at first."""
        values = {name: str(form.get(name, first)) for name, first in FIRST.items()}
        policies = tuple(str(name) for name in form.getlist("policies"))
        return cls(values, policies, tuple(name for name in FLAGS if form.get(name)))

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
            **{name: self.values[name] or None for name in ("device", "report_dataset", "normalization")},
            "criterion": self.values["criterion"],
            "policies": self.policies,
            **{name: name in self.flags for name in FLAGS},
            **{name: _number(self.values[name]) for name in numbers},
        }


def submit(service: Service, quota: Quota, form: FormData) -> JobRow | JobForm:
    """Take uploads and queue the job for the caller of a `quota`.

    Returns its record, or the form that says at each field what is wrong.

    Uploads that can be used are kept, and chosen in that form, so that nobody sends them twice.
    """
    typed = JobForm.of(form)
    model = form.get("model_file")
    if isinstance(model, UploadFile) and model.filename:
        typed = _with_model(service, typed, model)
    elif not typed.values["model"]:
        typed = typed.wrong("model", "expected a model: choose one, or upload a file")
    for upload, name in _DATASETS.items():
        dataset = form.get(upload)
        if isinstance(dataset, UploadFile) and dataset.filename:
            typed = _with_dataset(service, typed, dataset, name)
    if not typed.values["dataset"]:
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
    classes, shape = typed.values["num_classes"], typed.values["input_shape"]
    number = _number(classes)
    if classes and not (isinstance(number, int) and number > 0):
        return typed.wrong("num_classes", f"expected a whole number above 0, or nothing, found {classes[:100]!r}")
    try:
        row, _ = add_model(
            service.settings,
            service.records,
            service.store,
            file.file,
            file.filename or "",
            architecture=typed.values["architecture"] or None,
            num_classes=number if isinstance(number, int) else None,
            input_shape=shape_of(shape) if shape else None,
        )
    except AutopruneError as error:
        return typed.wrong("model", error)
    return typed.chosen("model", row.id)


def _with_dataset(service: Service, typed: JobForm, file: UploadFile, name: str) -> JobForm:
    """Receive a dataset and choose it in a field."""
    try:
        row, _ = add_dataset(service.settings, service.records, service.store, file.file, file.filename or "")
    except AutopruneError as error:
        return typed.wrong(name, error)
    return typed.chosen(name, row.id)


def _queued(service: Service, quota: Quota, typed: JobForm, spec: JobSpec) -> JobRow | JobForm:
    """Queue a job, or say where it is wrong."""
    try:
        return submitted(service, quota, spec)[0]
    except SpecError as error:
        return _with_problems(typed, error)
    except AutopruneError as error:
        named = str(error).partition(":")[0]  # "normalization: expected ..."
        name = named if named in FIRST else next((name for kind, name in _FIELDS if isinstance(error, kind)), "")
        return typed.wrong(name, error)


def _with_problems(typed: JobForm, error: SpecError) -> JobForm:
    """Return the form with every wrong setting at its field."""
    for problem in error.problems:
        name = problem["where"].partition(".")[0]
        text = f"{problem['expected']} (found {problem['found']})"
        is_shown = name in (*FIRST, *FLAGS, "policies")
        typed = typed.wrong(name, text) if is_shown else typed.wrong("", f"{name}: {text}")
    return typed


def _number(text: str) -> int | str:
    """Read a whole number; what is none stays as it is."""
    stripped = text.strip()
    digits = stripped.removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS
    return int(stripped) if is_number else text
