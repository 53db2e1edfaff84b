"""Uploads: received, looked at by the readers that jobs use, and only then kept and recorded."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from autoprune.costs.cost_model import cost_model
from autoprune.datasets.summary import DatasetSummary, summarize
from autoprune.errors import AutopruneError, DatasetError, ModelError
from autoprune.formats.load import load_network
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network, Shape
from autoprune.service.failure import NamedError
from autoprune.service.rest.views import DatasetView
from autoprune.service.settings import Settings
from autoprune.service.storage.file_store import FileStore, Upload
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import DatasetRow, Json, ModelRow

MODEL_SUFFIXES = (".onnx", ".safetensors")
DATASET_SUFFIXES = (".zip", ".npz")

_SHOWN_CLASSES = 1000

_MAX_SIDE = 4096


def add_model(
    settings: Settings,
    records: Records,
    store: FileStore,
    source: BinaryIO,
    filename: str,
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    input_shape: Shape | None = None,
) -> tuple[ModelRow, bool]:
    """Receive, check, keep and record a model; return its record, and whether it is new.

    Raises:
        ModelError: The file cannot be used, or architecture and kind of file do not go together.
        UnknownNameError: No such architecture.
        TooLargeError: More than ``settings.max_model_bytes``.
        StorageError: The disk cannot be written.

    """
    suffix = _suffix(filename, MODEL_SUFFIXES, ModelError)
    zoo = (architecture, num_classes, input_shape)
    if suffix == ".safetensors" and architecture is None:
        raise ModelError("safetensors hold weights alone: name the 'architecture' that they belong to")
    if suffix == ".onnx" and zoo[:2] != (None, None):
        raise ModelError("an ONNX file describes its own architecture: leave out architecture and num_classes")
    with store.received(source, suffix=suffix, max_bytes=settings.max_model_bytes) as upload:
        with _named(upload, filename):
            network = load_network(
                upload.file.path, architecture=architecture, num_classes=num_classes, input_shape=input_shape
            )
            facts = _model_facts(network)
        return records.add(
            ModelRow(
                id=_id("mdl", upload.file.sha256, suffix, *map(repr, zoo)),
                name=clean_name(filename),
                sha256=upload.file.sha256,
                suffix=suffix,
                size_bytes=upload.file.size_bytes,
                architecture=architecture,
                num_classes=num_classes,
                zoo_input_shape=None if input_shape is None else list(input_shape),
                facts=facts,
            ),
            keep=upload.keep,
        )


def add_dataset(
    settings: Settings, records: Records, store: FileStore, source: BinaryIO, filename: str
) -> tuple[DatasetRow, bool]:
    """Receive, check, keep and record a dataset; return its record, and whether it is new.

    Raises:
        DatasetError: The file cannot be used.
        TooLargeError: More than ``settings.max_dataset_bytes``.
        StorageError: The disk cannot be written.

    """
    suffix = _suffix(filename, DATASET_SUFFIXES, DatasetError)
    with store.received(source, suffix=suffix, max_bytes=settings.max_dataset_bytes) as upload:
        with _named(upload, filename):
            summary = summarize(upload.file.path)
        return records.add(
            DatasetRow(
                id=_id("dat", upload.file.sha256, suffix),
                name=clean_name(filename),
                sha256=upload.file.sha256,
                suffix=suffix,
                size_bytes=upload.file.size_bytes,
                facts=_dataset_facts(summary),
            ),
            keep=upload.keep,
        )


@functools.cache
def builtin_dataset() -> DatasetView:
    """Return the dataset that is always there."""
    return DatasetView(id="digits", name="digits", format="builtin", **_dataset_facts(summarize("digits")))


def clean_name(filename: str) -> str:
    """Return the last part of a file name that came from outside, printable and short."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(char if char.isascii() and (char.isalnum() or char in "._- ") else "_" for char in name)[-100:]


def load_stored(row: ModelRow, path: Path) -> Network:
    """Load the network of a model record from its file.

    Raises:
        ModelError: The stored file is damaged.

    """
    shape = row.zoo_input_shape
    return load_network(
        path,
        architecture=row.architecture,
        num_classes=row.num_classes,
        input_shape=None if shape is None else (shape[0], shape[1], shape[2]),
    )


def shape_of(text: str) -> Shape:
    """Read ``C,H,W``.

    Raises:
        ModelError: Something else.

    """
    parts = text.split(",")
    sizes = tuple(int(part) for part in parts if part.strip().isascii() and part.strip().isdecimal())
    if len(parts) != 3 or len(sizes) != 3 or not all(1 <= size <= _MAX_SIDE for size in sizes):
        raise ModelError(
            f"input_shape: expected channels,height,width, each from 1 to {_MAX_SIDE}, as in 3,32,32; found {text!r}"
        )
    return sizes


def _suffix(filename: str, known: tuple[str, ...], error: type[AutopruneError]) -> str:
    """Return the ending of a file name in small letters, if it is a known one."""
    suffix = PurePosixPath(clean_name(filename)).suffix.lower()
    if suffix not in known:
        raise error(f"expected a file whose name ends in {' or '.join(known)}, found {clean_name(filename)!r}")
    return suffix


def _id(prefix: str, *parts: str) -> str:
    """Return the id of a content: the same for the same parts, so that nothing is recorded twice."""
    return f"{prefix}_{hashlib.sha256(':'.join(parts).encode()).hexdigest()[:24]}"


def _model_facts(network: Network) -> Json:
    """Return what people want to know of a network before they choose a budget."""
    groups = find_groups(network)
    costs = cost_model(network, groups, groups.prunable(include_residual=True))
    return {
        "input_shape": list(network.input_shape),
        "output_shape": list(network.output_shape),
        "cost": costs.cost(costs.full()),
        "prunable_groups": len(groups.prunable()),
        "prunable_groups_with_residual": len(groups.prunable(include_residual=True)),
    }


def _dataset_facts(summary: DatasetSummary) -> Json:
    """Return what people want to know of a dataset."""
    names = summary.class_names
    return {
        "images": summary.images,
        "classes": None if names is None else len(names),
        "class_names": None if names is None else list(names[:_SHOWN_CLASSES]),
        "image_shape": None if summary.image_shape is None else list(summary.image_shape),
        "dtype": summary.dtype,
    }


@contextlib.contextmanager
def _named(upload: Upload, filename: str) -> Iterator[None]:
    """Let messages about the temporary file speak of the uploaded one."""
    try:
        yield
    except AutopruneError as error:
        raise NamedError(error, upload.file.path, clean_name(filename)) from error
