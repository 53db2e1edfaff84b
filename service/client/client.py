"""A client of the service: models and images in, jobs out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic_core import PydanticSerializationError, to_jsonable_python

from autoprune.service.client import uploads
from autoprune.service.client.connection import Connection
from autoprune.service.client.errors import ClientError
from autoprune.service.client.job import Comparison, Job, Study
from autoprune.service.client.views import Dataset, JobStatus, Model

if TYPE_CHECKING:
    from torch import nn

_Kind = TypeVar("_Kind", bound=Job)

#: Settings of a job that say what the file of its model is; an uploaded model has them already.
_UPLOAD_SETTINGS = ("architecture", "num_classes", "input_shape")


class Client:
    """Uses a service from Python: uploads, jobs and what they leave. A context manager, or :meth:`close` it.

    Every method raises :class:`autoprune.service.client.errors.ClientError` where the service refuses or does not
    answer; it says what was expected, what was found and what to do.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        reconnect: float = 60.0,
    ) -> None:
        """Name a service; nothing is sent yet.

        Args:
            url: Its address; None for ``AUTOPRUNE_URL``, else ``http://127.0.0.1:8765``.
            api_key: Sent as ``Authorization: Bearer``; None for ``AUTOPRUNE_API_KEY``, else none.
            timeout: Longest time for an answer, in seconds; uploads may take longer.
            reconnect: How long :meth:`Job.wait` goes on asking a service that cannot be reached, and a job is sent
                again whose answer was lost, in seconds.

        Raises:
            ClientError: No address of the web, or a key that cannot be sent.

        """
        self._connection = Connection(url, api_key, timeout)
        self._reconnect_s = reconnect

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._connection.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service; its jobs go on."""
        self._connection.close()

    def upload_model(
        self,
        model: "str | Path | nn.Module",
        *,
        architecture: str | None = None,
        num_classes: int | None = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> Model:
        """Send a model, which the service checks; the same one again costs an upload and nothing else.

        Args:
            model: An ``.onnx`` file, a ``.safetensors`` file with the weights of `architecture`, or a live module.
            architecture: A name of the zoo, for weights.
            num_classes: Size of the architecture's output; its usual one by default.
            input_shape: Shape of one image, ``(C, H, W)``; needed for a live module, otherwise where the file leaves
                it open.

        Raises:
            ModelError: No such file, or a module that cannot be traced.

        """
        return uploads.upload_model(
            self._connection, model, architecture=architecture, num_classes=num_classes, input_shape=input_shape
        )

    def upload_dataset(self, path: str | Path) -> Dataset:
        """Send images, which the service checks: a zip, an ``.npz``, or a folder, which is sent as a zip.

        Raises:
            DatasetError: No such file or folder, or a folder without images.

        """
        return uploads.upload_dataset(self._connection, Path(path))

    def submit(
        self, model: "str | Path | Model | nn.Module", dataset: str | Path | Dataset, budget: str, **settings: object
    ) -> Job:
        """Submit a job: search how much of every layer to prune within `budget`.

        Args:
            model: An uploaded model or its id, or what :meth:`upload_model` takes; the settings `architecture`,
                `num_classes` and `input_shape` are for that.
            dataset: ``"digits"``, an uploaded dataset or its id, or what :meth:`upload_dataset` takes.
            budget: Hard limits, for example ``"macs=50%,params=60%"``.
            settings: Everything else that ``POST /v1/jobs`` takes, for example ``policies=["uniform", "exact"]``,
                ``evaluations=200``, ``finetune_epochs=3``. `report_dataset` may be a file too, `continue_from` a job.

        Raises:
            ModelError: The model cannot be read or traced.
            DatasetError: The images cannot be read.

        """
        return self._submitted(Job, model, dataset, {"budget": budget, **settings})

    def compare(
        self, model: "str | Path | Model | nn.Module", dataset: str | Path | Dataset, budget: str, **settings: object
    ) -> Comparison:
        """Submit a comparison of several policies over several seeds; as :meth:`submit`, and `seeds`."""
        return self._submitted(Comparison, model, dataset, {"budget": budget, **settings})

    def study(
        self, study: str, model: "str | Path | Model | nn.Module", dataset: str | Path | Dataset, **settings: object
    ) -> Study:
        """Submit a study, ``"sensitivity"``, ``"oracle"`` or ``"schedule"``, with what ``POST /v1/studies`` takes."""
        return self._submitted(Study, model, dataset, {"study": study, **settings})

    def jobs(self, *, state: str | None = None, limit: int = 100) -> list[Job]:
        """Return the newest jobs, newest first, of one `state` or of all."""
        return self._listed(Job, state, limit)

    def comparisons(self, *, state: str | None = None, limit: int = 100) -> list[Comparison]:
        """Return the newest comparisons, newest first, of one `state` or of all."""
        return self._listed(Comparison, state, limit)

    def studies(self, *, state: str | None = None, limit: int = 100) -> list[Study]:
        """Return the newest studies, newest first, of one `state` or of all."""
        return self._listed(Study, state, limit)

    def job(self, job_id: str) -> Job:
        """Return the job, comparison or study of this id."""
        kinds: tuple[type[Comparison | Study], ...] = (Comparison, Study)
        kind = next((each for each in kinds if job_id.startswith(each.PREFIX)), Job)
        return kind(self._connection, self._connection.get(JobStatus, kind.path_of(job_id)), self._reconnect_s)

    def _submitted(
        self, kind: type[_Kind], model: "str | Path | Model | nn.Module", dataset: object, settings: dict[str, object]
    ) -> _Kind:
        """Send what is not there yet, and submit a job of this kind."""
        sent = self._sent_model(model, settings)
        document = {"model": sent if isinstance(sent, str) else sent.id, **settings}
        document["dataset"] = uploads.dataset_id(self._connection, dataset)
        if document.get("report_dataset") is not None:
            document["report_dataset"] = uploads.dataset_id(self._connection, document["report_dataset"])
        if isinstance(earlier := document.get("continue_from"), Job):
            document["continue_from"] = earlier.id
        try:
            plain = to_jsonable_python(document, inf_nan_mode="strings")
        except PydanticSerializationError as error:
            raise ClientError(f"expected settings that JSON can hold: {error}", type="invalid-request") from error
        address = f"/v1/{kind.ADDRESS}"
        status = self._connection.create(JobStatus, address, plain, patience_s=self._reconnect_s)
        onnx = None if isinstance(sent, str) else sent.onnx
        return kind(self._connection, status, self._reconnect_s, onnx)

    def _sent_model(self, model: "str | Path | Model | nn.Module", settings: dict[str, object]) -> Model | str:
        """Return a model that the service has, or its id; settings for an upload are taken out of `settings`."""
        if isinstance(model, Model):
            return model
        if isinstance(model, str) and model.startswith(uploads.MODEL_ID) and not Path(model).exists():
            return model
        options: dict[str, Any] = {name: settings.pop(name, None) for name in _UPLOAD_SETTINGS}
        return self.upload_model(model, **options)

    def _listed(self, kind: type[_Kind], state: str | None, limit: int) -> list[_Kind]:
        """Return the newest jobs of one kind."""
        params: dict[str, str | int] = {"limit": limit} if state is None else {"limit": limit, "state": state}
        found = self._connection.get(list[JobStatus], f"/v1/{kind.ADDRESS}", params)
        return [kind(self._connection, status, self._reconnect_s) for status in found]
