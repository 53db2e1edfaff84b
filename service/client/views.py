"""What the service says of models, datasets, jobs and artifacts, as far as the client needs it.

Fields that are not known here are passed over: a service may say more than its clients understand.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autoprune.service.specs.progress import Progress

SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"


class View(BaseModel):
    """One answer of the service."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Model(View):
    """An uploaded model.

    Attributes:
        id: What jobs name it by.
        name: Name of its file.
        input_shape: One image, ``(C, H, W)``.
        output_shape: Output for one image.
        cost: Of the unpruned network: MACs, parameters, bytes.
        prunable_groups: Channel groups that can be pruned.
        onnx: What was uploaded, where that was a live module; jobs then give back a network with its layers' names.

    """

    id: str
    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    cost: dict[str, int]
    prunable_groups: int
    onnx: bytes | None = Field(default=None, repr=False, exclude=True)


class Dataset(View):
    """A dataset that jobs can use.

    Attributes:
        id: What jobs name it by.
        name: Name of its file.
        images: Number of images.
        classes: Number of classes; None without labels.

    """

    id: str
    name: str
    images: int
    classes: int | None


class Artifact(View):
    """One file that a job left.

    Attributes:
        name: Path within the job's artifacts, with ``/``.
        sha256: Hash of its content.
        size_bytes: Its size.
        media_type: What it is.

    """

    name: str
    sha256: str
    size_bytes: int
    media_type: str


class Reason(View):
    """Why a job failed: the kind of error, and what was expected and found."""

    type: str
    detail: str


class JobProgress(Progress):
    """How far a job is."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JobStatus(View):
    """A job as it was when the service was asked.

    Attributes:
        id: Its name.
        state: queued, running, succeeded, failed or cancelled.
        spec: Its settings, defaults filled in.
        progress: How far it is; None before it runs.
        error: Why it failed; None unless it did.
        cancel_requested: Whether somebody asked for its end.
        attempts: How often its process was started.
        created_at: When it was submitted.
        started_at: When it began; None before.
        finished_at: When it ended; None before.

    """

    id: str
    state: str
    spec: dict[str, Any]
    progress: JobProgress | None
    error: Reason | None
    cancel_requested: bool
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.state in (SUCCEEDED, FAILED, CANCELLED)
