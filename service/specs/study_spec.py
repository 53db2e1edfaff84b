"""What a study is asked to do; the command line and REST fill in the same values. Needs no torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from autoprune.criteria.catalog import criterion_names, find_criterion
from autoprune.errors import UnknownNameError
from autoprune.service.specs.job_spec import EXAMPLE_DATASET_ID, EXAMPLE_MODEL_ID, InputShape, JobSpec

#: Fields of a study that are those of a job, of the same name and meaning.
JOB_FIELDS = (
    "model", "architecture", "num_classes", "input_shape", "dataset", "fit_images", "search_images", "normalization",
    "include_residual", "seed", "threads",
)  # fmt: skip

#: Settings of a job that nothing here looks at: nothing is searched.
_NO_SEARCH: dict[str, Any] = {
    "budget": "macs=50%",
    "policies": ("uniform",),
    "criterion": "l1",
    "reconstruction": False,
}

#: What is done after a cut, as in :mod:`autoprune.studies.curves`, which imports torch.
Recovery = Literal["none", "batchnorm", "reconstruction"]

_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Images = Annotated[int, Field(ge=1, le=10_000_000)]
_OPTIONS = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse unknown criteria."""
    for name in names:
        try:
            find_criterion(name, "channel")
        except UnknownNameError as error:
            raise PydanticCustomError("criterion", "{reason}", {"reason": str(error)}) from error
    return names


class SensitivityOptions(BaseModel):
    """How sensitivity curves are taken."""

    model_config = _OPTIONS

    criterion: str = Field(
        default="l1",
        description="Whose lowest scores go first, of `autoprune criteria`.",
        json_schema_extra={"enum": list(criterion_names("channel"))},
    )
    steps: int = Field(default=9, ge=1, le=1000, description="Shares between 0 and 1 that are cut: 9 for 10% .. 90%.")
    recoveries: tuple[Recovery, ...] = Field(
        default=("none", "batchnorm", "reconstruction"),
        strict=False,
        min_length=1,
        max_length=3,
        description="A curve each: nothing after the cut; batch norms recalibrated; the layers behind reconstructed "
        "too, as in a search.",
    )
    groups: tuple[_Text, ...] | None = Field(
        default=None, strict=False, min_length=1, max_length=10_000, description="Which groups; None for all."
    )

    @field_validator("criterion")
    @classmethod
    def _check_criterion(cls, value: str) -> str:
        """Refuse unknown criteria."""
        return _known((value,))[0]

    @field_validator("recoveries")
    @classmethod
    def _once(cls, value: tuple[Recovery, ...]) -> tuple[Recovery, ...]:
        """Take each once."""
        return tuple(dict.fromkeys(value))


class OracleOptions(BaseModel):
    """How channels are left out, and what is compared with that."""

    model_config = _OPTIONS

    criteria: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=100,
        description="What is compared with the oracle, of `autoprune criteria`; None: all that can score the network.",
        json_schema_extra={"items": {"enum": list(criterion_names("channel"))}},
    )
    channels: int | None = Field(
        default=32, ge=2, description="Most channels of a group that are left out, drawn by the seed; None for all."
    )
    images: int = Field(
        default=512, ge=2, le=10_000_000, description="Fit images that the loss is measured on, at most."
    )

    @field_validator("criteria")
    @classmethod
    def _check_criteria(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Refuse unknown criteria."""
        return None if value is None else _known(tuple(dict.fromkeys(value)))


class ScheduleOptions(BaseModel):
    """How one shot is held against several cuts."""

    model_config = _OPTIONS

    criterion: str = Field(
        default="taylor-gate",
        description="Whose lowest scores go first, of `autoprune criteria` (not obs).",
        json_schema_extra={"enum": list(criterion_names("channel"))},
    )
    kept: float = Field(default=0.5, gt=0, lt=1, description="Share of the MACs that is left in the end.")
    rounds: int = Field(default=5, ge=2, le=1000, description="Cuts of the iterative schedule; one shot has one.")
    epochs: int = Field(
        default=4, ge=1, le=10_000, description="Passes over the fit images in all, the same for both schedules."
    )
    learning_rate: float = Field(default=0.003, gt=0, le=10, description="Of relative-adamw, as in fine-tuning.")
    flip: bool = Field(default=False, description="Mirror images at random; not where left and right matter.")
    repeats: int = Field(default=3, ge=1, le=100, description="How often each is run, with the seeds 0, 1, ...")

    @field_validator("criterion")
    @classmethod
    def _check_criterion(cls, value: str) -> str:
        """Refuse unknown criteria, and the one that needs reconstruction."""
        if value == "obs":
            raise PydanticCustomError("criterion", "a schedule scores networks anew; choose another criterion than obs")
        return _known((value,))[0]


class StudySpec(BaseModel):
    """One study of a trained network; nothing is delivered but what was measured."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {"study": "sensitivity", "model": EXAMPLE_MODEL_ID, "dataset": "digits"},
                {
                    "study": "oracle",
                    "model": EXAMPLE_MODEL_ID,
                    "dataset": EXAMPLE_DATASET_ID,
                    "oracle": {"criteria": ["l2", "taylor-gate", "obs"], "channels": 16},
                },
            ]
        },
    )

    study: Literal["sensitivity", "oracle", "schedule"] = Field(
        description="sensitivity: every group alone, pruned to a grid of shares. oracle: what the loss gains without "
        "each channel alone, and which criteria rank channels alike. schedule: one shot against several cuts."
    )
    model: _Text = Field(
        description="REST: the id of an uploaded model. Command line: a path, .onnx or .safetensors.",
        examples=[EXAMPLE_MODEL_ID],
    )
    architecture: _Text | None = Field(default=None, description="As in a job.", examples=["resnet56_cifar"])
    num_classes: int | None = Field(default=None, ge=1, le=1_000_000, description="As in a job.")
    input_shape: InputShape = Field(default=None, strict=False, description="As in a job.")
    dataset: _Text = Field(
        description="'digits' (built in). REST: or the id of an uploaded dataset. Command line: or a folder, zip, npz.",
        examples=["digits", EXAMPLE_DATASET_ID],
    )
    fit_images: _Images | None = Field(
        default=None, description="Images for criteria, statistics, the oracle and training; None: 70% of them."
    )
    search_images: _Images | None = Field(
        default=None, description="Images that pruned networks are scored on; None: 15%, bounded."
    )
    normalization: _Text | None = Field(default=None, description="As in a job.", examples=["imagenet"])
    include_residual: bool = Field(default=False, description="Also study residual streams.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of everything random; equal seeds, equal results.")
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads.")
    sensitivity: SensitivityOptions = Field(default=SensitivityOptions(), description="Of study sensitivity.")
    oracle: OracleOptions = Field(default=OracleOptions(), description="Of study oracle.")
    schedule: ScheduleOptions = Field(default=ScheduleOptions(), description="Of study schedule.")

    def inputs(self) -> JobSpec:
        """Return model and images as those of a job that searches nothing."""
        return JobSpec(**{name: getattr(self, name) for name in JOB_FIELDS}, **_NO_SEARCH)

    def with_inputs(self, job: JobSpec) -> "StudySpec":
        """Return the study of the model and images that a job names."""
        return self.model_copy(update={name: getattr(job, name) for name in JOB_FIELDS})
