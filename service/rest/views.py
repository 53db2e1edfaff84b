"""What REST shows of models, datasets, jobs and artifacts."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from autoprune.criteria.catalog import Criterion, Granularity, Need
from autoprune.service.specs.job_spec import EXAMPLE_DATASET_ID, EXAMPLE_MODEL_ID
from autoprune.service.specs.progress import Progress
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import ArtifactRow, DatasetRow, JobRow, ModelRow

EXAMPLE_JOB_ID = "job_5f1c0e1b8a7d4c7e9b1f2a3d"
EXAMPLE_STUDY_ID = "std_7c1e9a4b2d6f4c0d8a3b5e7f"
EXAMPLE_COMPARISON_ID = "cmp_0b8d2c6f4e1a4f7c9d3e5b7a"

_Sha256 = Annotated[str, Field(description="Hash of the content.", examples=["2c26b46b68ffc68ff99b453c1d304134" * 2])]
_SizeBytes = Annotated[int, Field(description="Size of the file.", examples=[3_461_120])]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelView(_View):
    """An uploaded model that was read without complaint."""

    id: str = Field(examples=[EXAMPLE_MODEL_ID])
    name: str = Field(description="Name of the file.", examples=["resnet56.onnx"])
    format: Literal["onnx", "safetensors"]
    architecture: str | None = Field(description="Zoo architecture of safetensors.", examples=[None])
    sha256: _Sha256
    size_bytes: _SizeBytes
    input_shape: list[int] = Field(description="One image, (C, H, W).", examples=[[3, 32, 32]])
    output_shape: list[int] = Field(description="Output for one image.", examples=[[10]])
    cost: dict[str, int] = Field(examples=[{"macs": 125_485_696, "params": 853_018, "bytes": 3_412_072}])
    prunable_groups: int = Field(description="Channel groups that can be pruned.", examples=[27])
    prunable_groups_with_residual: int = Field(description="The same with residual streams.", examples=[30])
    created_at: datetime

    @classmethod
    def of(cls, row: ModelRow) -> "ModelView":
        """Show a record."""
        return cls(
            id=row.id,
            name=row.name,
            format="onnx" if row.suffix == ".onnx" else "safetensors",
            architecture=row.architecture,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            **row.facts,
        )


class DatasetView(_View):
    """A dataset that jobs can use."""

    id: str = Field(examples=[EXAMPLE_DATASET_ID])
    name: str = Field(description="Name of the file.", examples=["cifar10.zip"])
    format: Literal["builtin", "zip", "npz"]
    sha256: _Sha256 | None = None
    size_bytes: _SizeBytes | None = None
    images: int = Field(examples=[50_000])
    classes: int | None = Field(description="Number of classes; null without labels.", examples=[10])
    class_names: list[str] | None = Field(description="The first 1,000 of them.", examples=[["cat", "dog"]])
    image_shape: list[int] | None = Field(
        description="(C, H, W) of arrays; null for image files, which are brought to the model's.", examples=[None]
    )
    dtype: Literal["uint8", "float32"] | None = Field(
        default=None, description="What a value is; null where it was uploaded before this was recorded."
    )
    created_at: datetime | None = None

    @classmethod
    def of(cls, row: DatasetRow) -> "DatasetView":
        """Show a record."""
        return cls(
            id=row.id,
            name=row.name,
            format="npz" if row.suffix == ".npz" else "zip",
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            **row.facts,
        )


class BuiltinDataset(_View):
    """Asks for a dataset that comes with autoprune."""

    builtin: Literal["digits"]


class JobError(_View):
    """Why a job failed."""

    type: str = Field(description="Kind of error, as in problem details.", examples=["dataset-error"])
    detail: str = Field(examples=["cifar10.zip: 1 of 50000 images cannot be read: cat/7.jpg (truncated)."])


class JobView(_View):
    """A job, and how far it is."""

    id: str = Field(examples=[EXAMPLE_JOB_ID])
    state: JobState = Field(examples=["running"])
    spec: dict[str, Any] = Field(description="The settings, defaults filled in.")
    progress: Progress | None
    error: JobError | None = Field(description="Why it failed; null unless it did.", examples=[None])
    cancel_requested: bool = Field(description="Whether somebody asked for its end.")
    attempts: int = Field(description="How often its process was started.", examples=[1])
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: JobRow) -> Self:
        """Show a record."""
        return cls(
            id=row.id,
            state=JobState(row.state),
            spec=row.spec,
            progress=None if row.progress is None else Progress(**row.progress),
            error=None if row.error is None else JobError(**row.error),
            cancel_requested=row.cancel_requested,
            attempts=row.attempts,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


class ComparisonView(JobView):
    """A comparison, and how far it is: a job over several seeds."""

    id: str = Field(examples=[EXAMPLE_COMPARISON_ID])


class StudyView(JobView):
    """A study, and how far it is."""

    id: str = Field(examples=[EXAMPLE_STUDY_ID])


class CriterionView(_View):
    """What channels or single weights can be ranked by; the highest scores stay."""

    name: str = Field(examples=["taylor-gate"])
    meaning: str = Field(description="What the score is. A channel's members are the weights that go with it.")
    granularities: list[Granularity] = Field(description="What it can score.")
    needs: list[Need] = Field(description="What it cannot do without; nothing: the weights are enough.")
    paper: str = Field(examples=["Molchanov et al. 2019"])
    arxiv: str | None = Field(examples=["1906.10771"])
    one_scale: bool = Field(description="Whether scores of different groups compare as they are.")

    @classmethod
    def of(cls, criterion: Criterion) -> Self:
        """Show a criterion."""
        return cls.model_validate(asdict(criterion))


class ArtifactView(_View):
    """One file that a job left."""

    name: str = Field(description="Path within the job's artifacts.", examples=["sensitivity/model.onnx"])
    sha256: _Sha256
    size_bytes: _SizeBytes
    media_type: str = Field(examples=["application/octet-stream"])

    @classmethod
    def of(cls, row: ArtifactRow) -> "ArtifactView":
        """Show a record."""
        return cls(name=row.name, sha256=row.sha256, size_bytes=row.size_bytes, media_type=row.media_type)


class HealthView(_View):
    """The service answers and its records can be read."""

    status: Literal["ok"] = "ok"
    version: str = Field(examples=["0.1.0"])
    runs_jobs: bool = Field(description="Whether this service takes jobs from the queue.")
