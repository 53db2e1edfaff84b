"""Models and images on their way to the service, and what jobs call them there."""

import io
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from autoprune.errors import DatasetError, ModelError
from autoprune.service.client.connection import Connection
from autoprune.service.client.views import Dataset, Model

if TYPE_CHECKING:
    from torch import nn

#: The dataset that every service has.
BUILTIN = "digits"

#: What the ids of uploads begin with.
MODEL_ID, DATASET_ID = "mdl_", "dat_"


def upload_model(
    connection: Connection,
    model: "str | Path | nn.Module",
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Model:
    """Send a model; see :meth:`autoprune.service.client.client.Client.upload_model`."""
    if not isinstance(model, str | Path):
        from autoprune.service.client.networks import module_onnx  # imports torch

        if (architecture, num_classes) != (None, None):
            raise ModelError("a live module is its own architecture: leave out architecture and num_classes")
        content = module_onnx(model, input_shape)
        sent = connection.upload(Model, "/v1/models", io.BytesIO(content), f"{type(model).__name__}.onnx")
        return sent.model_copy(update={"onnx": content})
    shape = None if input_shape is None else ",".join(map(str, input_shape))
    fields = {"architecture": architecture, "num_classes": num_classes, "input_shape": shape}
    form = {name: str(value) for name, value in fields.items() if value is not None}
    path = Path(model)
    try:
        with path.open("rb") as file:
            return connection.upload(Model, "/v1/models", file, path.name, form)
    except OSError as error:
        raise ModelError(
            f"model {path}: cannot be read ({error.strerror}); expected an .onnx or .safetensors file, or the id of an "
            f"uploaded model ({MODEL_ID}...)"
        ) from error


def upload_dataset(connection: Connection, path: Path) -> Dataset:
    """Send images; see :meth:`autoprune.service.client.client.Client.upload_dataset`."""
    try:
        if path.is_dir():
            from autoprune.datasets.packing import pack_images  # imports numpy

            with TemporaryFile() as packed:
                pack_images(path, packed)
                packed.seek(0)
                return connection.upload(Dataset, "/v1/datasets", packed, f"{path.resolve().name}.zip")
        with path.open("rb") as file:
            return connection.upload(Dataset, "/v1/datasets", file, path.name)
    except OSError as error:
        raise DatasetError(
            f"dataset {path}: cannot be read ({error.strerror}); expected {BUILTIN!r}, a folder, .zip or .npz of "
            f"images, or the id of an uploaded dataset ({DATASET_ID}...)"
        ) from error


def dataset_id(connection: Connection, dataset: object) -> str:
    """Return what a job calls a dataset, which is sent first if it is a file or folder.

    Raises:
        DatasetError: It cannot be read.

    """
    if isinstance(dataset, Dataset):
        return dataset.id
    if not isinstance(dataset, str | Path):
        raise DatasetError(f"expected {BUILTIN!r}, a path or an uploaded dataset, found {type(dataset).__name__}")
    if dataset == BUILTIN or (str(dataset).startswith(DATASET_ID) and not Path(dataset).exists()):
        return str(dataset)
    return upload_dataset(connection, Path(dataset)).id
