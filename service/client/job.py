"""A job or comparison of a service, seen from another process."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from autoprune.errors import UnknownNameError
from autoprune.service.client.connection import Connection
from autoprune.service.client.download import receive, save
from autoprune.service.client.errors import CANCELLED, NO_NETWORK, NO_SERVICE, NOT_FINISHED, TIMEOUT, ClientError
from autoprune.service.client.views import FAILED, SUCCEEDED, Artifact, JobProgress, JobStatus
from autoprune.service.client.watching import bars_in_terminal, patiently
from autoprune.service.comparisons.comparison_result import FILE as COMPARISON_FILE
from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.results.job_result import FILE, JobResult
from autoprune.service.results.wording import best_outcome, outcome_of
from autoprune.service.specs.progress import Progress
from autoprune.service.studies.study_result import FILE as STUDY_FILE
from autoprune.service.studies.study_result import StudyResult

if TYPE_CHECKING:
    from torch import nn

#: Before a question how far a job is, where the service does not tell of its own accord.
POLL_S = 0.25

#: Longest silence of a stream of events, in seconds; a service that lives says something every 15.
SILENCE_S = 30.0

_WAITS = Progress(stage="queued", done=0, total=0, message="waits for its turn")

_Document = TypeVar("_Document", bound=BaseModel)


class Job:
    """A submitted job. What it is asked for while the service does not answer, or refuses, raises ClientError.

    Attributes:
        status: What the service said last; :meth:`refresh` asks again.

    """

    #: Where jobs of this kind are in the service.
    ADDRESS = "jobs"

    def __init__(
        self, connection: Connection, status: JobStatus, reconnect_s: float, onnx: bytes | None = None
    ) -> None:
        """Stand for the job of this status; `onnx` is the model, where that was a live module."""
        self.status = status
        self._connection, self._reconnect_s, self._onnx = connection, reconnect_s, onnx

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.state}>"

    @classmethod
    def path_of(cls, job_id: str) -> str:
        """Return where the job of this id is in the service."""
        return f"/v1/{cls.ADDRESS}/{quote(job_id, safe='')}"

    @property
    def id(self) -> str:
        """Its name in the service."""
        return self.status.id

    @property
    def state(self) -> str:
        """The last known state: queued, running, succeeded, failed or cancelled."""
        return self.status.state

    def refresh(self) -> JobStatus:
        """Ask the service how far the job is."""
        self.status = self._connection.get(JobStatus, self.path_of(self.id))
        return self.status

    def wait(self, timeout: float | None = None, *, progress: bool | Callable[[Progress], None] = True) -> Self:
        """Return once the job has succeeded. The service may end and come back meanwhile.

        Args:
            timeout: Longest time to wait, in seconds; None for as long as it takes.
            progress: Whether to draw bars, if stderr is a terminal; or a function that is told how far the job is.

        Raises:
            ClientError: The job failed (with its reason), was cancelled or takes longer than `timeout`; or the service
                could not be reached for the client's ``reconnect`` seconds.

        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        with bars_in_terminal(progress) as say:
            while not patiently(self.refresh, self._reconnect_s, deadline).is_final:
                say(self.status.progress or _WAITS)
                if time.monotonic() >= deadline:
                    raise ClientError(f"job {self.id} is still {self.state} after {timeout:g} s", type=TIMEOUT)
                self._follow(deadline, say)
                time.sleep(max(0.0, min(POLL_S, deadline - time.monotonic())))
            if self.state == SUCCEEDED:
                say(Progress(stage="done", done=1, total=1))
        self._check_success()
        return self

    def cancel(self) -> None:
        """Ask for the end of the job: at once while it is queued, within seconds while it runs."""
        self.status = self._connection.post(JobStatus, f"{self.path_of(self.id)}/cancel")

    def artifacts(self) -> list[Artifact]:
        """Return the files that the job left; none until it has succeeded."""
        return self._connection.get(list[Artifact], f"{self.path_of(self.id)}/artifacts")

    def download(self, folder: str | Path, *names: str) -> list[Path]:
        """Write the artifacts of these names, or all, into `folder`, in the sub-folders of their names.

        Every file appears complete, with the size and sha256 that the service lists, or not at all.

        Raises:
            ClientError: The job has not succeeded, or a file arrives damaged or cannot be written.
            UnknownNameError: It has no artifact of such a name.

        """
        artifacts = self._named_artifacts()
        return [
            save(chosen, self._content(chosen), Path(folder))
            for chosen in ([self._chosen(artifacts, name) for name in names] or artifacts.values())
        ]

    def result(self) -> JobResult:
        """Return what the job found: every policy's outcome, and the best one.

        Raises:
            ClientError: The job has not succeeded.

        """
        return self._document(JobResult, FILE)

    def network(self, policy: str | None = None) -> "nn.Module":
        """Return a pruned network, in eval mode, on the CPU: one batch of normalised images in, ``(n, classes)`` out.

        It computes what the job's ONNX file does. Where this client submitted a live module, its layers keep their
        names and batch norms, so that it can be trained on; otherwise it is read from that file, where batch norm is
        part of the convolutions.

        Args:
            policy: Whose network; None for the best one.

        Raises:
            ClientError: The job has not succeeded.
            UnknownNameError: It did not run this policy.

        """
        from autoprune.service.client.networks import pruned_network  # imports torch

        result = self.result()
        outcome = best_outcome(result) if policy is None else outcome_of(result, policy)
        if outcome is None:
            raise UnknownNameError("policy", str(policy), [each.policy for each in result.outcomes])
        return pruned_network(self, outcome.artifacts, self._onnx)

    def _follow(self, deadline: float, say: Callable[[Progress], None]) -> None:
        """Tell `say` how far the job is as the service tells it, until that ends or breaks, or until `deadline`.

        Why it ended does not matter here: whoever asks next finds out.
        """
        timeout_s = max(0.0, min(SILENCE_S, deadline - time.monotonic()))
        told = self._connection.events(f"{self.path_of(self.id)}/events", timeout_s=timeout_s)
        with contextlib.suppress(ClientError, ValidationError), contextlib.closing(told):
            for event, data in told:
                if event == "progress":
                    say(JobProgress.model_validate_json(data))
                elif not self.refresh().is_final and self.status.progress is None:
                    say(_WAITS)
                if time.monotonic() >= deadline:
                    return

    def _document(self, kind: type[_Document], name: str) -> _Document:
        """Return an artifact that is a JSON document."""
        artifact = self._chosen(self._named_artifacts(), name)
        content = io.BytesIO()
        receive(artifact, self._content(artifact), content)
        try:
            return kind.model_validate_json(content.getvalue())
        except ValidationError as error:
            raise ClientError(
                f"{name} of job {self.id} is not what this version of autoprune writes; use the client of the "
                "service's version",
                type=NO_SERVICE,
            ) from error

    def _named_artifacts(self) -> dict[str, Artifact]:
        """Return all artifacts of a job that must have succeeded, by name."""
        if not self.status.is_final:
            self.refresh()
        self._check_success()
        return {artifact.name: artifact for artifact in self.artifacts()}

    def _chosen(self, artifacts: dict[str, Artifact], name: str) -> Artifact:
        """Return the artifact of this name."""
        if name not in artifacts:
            raise UnknownNameError("artifact", name, artifacts)
        return artifacts[name]

    def _content(self, artifact: Artifact) -> Iterator[bytes]:
        """Yield the content of an artifact as the service sends it."""
        return self._connection.download(f"{self.path_of(self.id)}/artifacts/{quote(artifact.name)}")

    def _check_success(self) -> None:
        """Raise unless the job has succeeded."""
        if self.state == SUCCEEDED:
            return
        if self.state == FAILED and self.status.error is not None:
            reason = self.status.error
            raise ClientError(f"job {self.id} failed: {reason.detail}", type=reason.type)
        if not self.status.is_final:
            raise ClientError(f"job {self.id} is {self.state}; wait for its end first", type=NOT_FINISHED)
        raise ClientError(f"job {self.id} was {self.state}", type=CANCELLED)


class Comparison(Job):
    """A submitted comparison: a job over several seeds. Its result is that of the networks that it delivers."""

    ADDRESS = "comparisons"

    #: What the ids of comparisons begin with.
    PREFIX = "cmp_"

    def comparison(self) -> ComparisonResult:
        """Return who beats whom, by how much, and how surely.

        Raises:
            ClientError: The comparison has not succeeded.

        """
        return self._document(ComparisonResult, COMPARISON_FILE)

    def result(self) -> JobResult:
        """Return what the delivered networks are: of every policy its best over the seeds; errors as of a job."""
        return self.comparison().delivered


class Study(Job):
    """A submitted study: what was measured of a network. There is no pruned network and no result of a job."""

    ADDRESS = "studies"

    #: What the ids of studies begin with.
    PREFIX = "std_"

    def study(self) -> StudyResult:
        """Return what was found.

        Raises:
            ClientError: The study has not succeeded.

        """
        return self._document(StudyResult, STUDY_FILE)

    def result(self) -> JobResult:
        """Refuse: a study delivers no network.

        Raises:
            ClientError: Always.

        """
        raise ClientError(
            f"{self.id} is a study, which delivers no network; see study(), or download its report", type=NO_NETWORK
        )
