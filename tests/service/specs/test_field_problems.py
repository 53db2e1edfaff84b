"""Every wrong value of every setting is described in words of this project."""

import math
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.rest.routes_devices import WorkRequest
from autoprune.service.specs.field_problems import problems_of
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.reading import SpecError, read_as
from autoprune.service.specs.study_spec import StudySpec

JOB = {"model": "m.onnx", "dataset": "digits", "budget": "macs=50%"}
RIGHT: dict[type[BaseModel], dict[str, Any]] = {
    JobSpec: JOB,
    ComparisonSpec: JOB,
    StudySpec: {"study": "oracle", "model": "m.onnx", "dataset": "digits"},
    WorkRequest: {"model_id": "mdl_1"},
}
WRONG: list[Any] = [
    None, True, -5, 0, 10**30, 1.5, 2.0, math.nan, math.inf, "", "x", "x" * 5000, "10", "1.5", "\ud800", b"x", [], [1],
    ["x"] * 200, [1, 2, 3, 4], [1, 2, "x"], [0, 0, 0], [None], [[]], {}, {"nonsense": 1},
]  # fmt: skip

#: Types of errors that pydantic words itself; all others are ours.
FOREIGN = set(get_args(ErrorType))


def documents(kind: type[BaseModel], right: dict[str, Any]) -> Iterator[Any]:
    """Yield documents with one wrong value each, in settings within settings too."""
    yield from ([], {}, "x", {**right, "nonsense": 1}, {**right, "reconstruction": False})
    for name, field in kind.model_fields.items():
        for value in WRONG:
            yield {**right, name: value}
            for part in (field.annotation, *get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield from ({**right, name: {setting: value}} for setting in part.model_fields)


@pytest.mark.parametrize("kind", RIGHT, ids=lambda kind: kind.__name__)
def test_no_message_is_pydantics(kind: type[BaseModel]) -> None:
    kind.model_validate(RIGHT[kind])
    found = 0
    for document in documents(kind, RIGHT[kind]):
        try:
            kind.model_validate(document)
        except ValidationError as error:
            for problem, raw in zip(problems_of(error.errors(), kind), error.errors(), strict=True):
                found += 1
                assert problem["where"] or not isinstance(document, dict), raw
                ours = ("expected ", "there is no such setting; ")
                assert raw["type"] not in FOREIGN or problem["expected"].startswith(ours), raw
    assert found > 100


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"polices": ["exact"]}, "polices: there is no such setting; did you mean 'policies'? (found ['exact'])"),
        ({"finetune": {"lerning_rate": 0.1}}, "finetune.lerning_rate: there is no such setting; did you mean 'lea"),
        ({"front": {"nonsense": 1}}, "front.nonsense: there is no such setting; there are: least, points (found 1)"),
        ({"finetune": {"optimizer": "adam"}}, "expected 'sgd', 'adamw' or 'relative-adamw'; did you mean 'adamw'?"),
        ({"finetune": {"learning_rate": 0}}, "finetune.learning_rate: expected more than 0 (found 0)"),
        ({"seed": 2**32}, "seed: expected less than 4,294,967,296 (found 4294967296)"),
        ({"input_shape": [3, 32]}, "input_shape.2: expected a value: it must be given (found nothing)"),
        ({"input_shape": [3, 0, 0]}, "input_shape: expected (channels, height, width), each from 1 to 4096"),
        ({"policies": []}, "policies: expected at least 1 item(s) (found [])"),
        (
            {"warm_start": True, "criterion": "l1", "policies": ["uniform"], "reconstruction": False},
            "reconstruction: a",
        ),
    ],
)
def test_what_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        read_as(JobSpec, {**JOB, **wrong})
    assert message in str(error.value)


def test_studies_refuse_the_shapes_that_jobs_refuse() -> None:
    with pytest.raises(SpecError, match=r"^input_shape: expected \(channels, height, width\), each from 1 to 4096"):
        read_as(StudySpec, {**RIGHT[StudySpec], "input_shape": [3, 0, 0]})
