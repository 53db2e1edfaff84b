"""The folder that a command writes its results to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoprune.service.cli.errors import CommandError
from autoprune.service.locks import held
from autoprune.service.pipeline.finalist import FILES
from autoprune.service.pipeline.quantized import int8_path

#: Held by the command that writes there.
LOCK = ".lock"

#: What commands say of the ``model.onnx`` that they leave.
PRUNED, FINETUNED = "prune.json", "finetune.json"


def _make_folder(folder: Path) -> None:
    """Make the output folder.

    Raises:
        CommandError: It cannot be made or written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise CommandError(f"--output {folder}: cannot write there ({error.strerror})") from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the output folder, and keep other commands out of it until the context ends.

    Raises:
        CommandError: It cannot be made or written, or another command is running there.

    """
    _make_folder(folder)
    with held(folder / LOCK) as alone:
        if not alone:
            raise CommandError(f"--output {folder}: another command is running there; wait for it or choose another")
        yield


def forget_results(folder: Path, *others: str) -> None:
    """Remove what belongs to a ``model.onnx`` that is about to be replaced: it would be taken for the new one's.

    Args:
        folder: Where it lies.
        others: Names of more files to remove than its certificate and its int8 version.

    """
    for name in (FILES["certificate"], int8_path(folder / FILES["onnx"]).name, *others):
        (folder / name).unlink(missing_ok=True)
