"""Artifacts of a job, received whole or not at all."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from autoprune.service.client.errors import DAMAGED, ClientError
from autoprune.service.client.views import Artifact


def receive(artifact: Artifact, pieces: Iterable[bytes], target: IO[bytes]) -> None:
    """Write the content of `artifact` to `target`.

    Raises:
        ClientError: It is not the content that the service's list of artifacts names, by size and sha256.

    """
    digest, size_bytes = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size_bytes += len(piece)
        if size_bytes > artifact.size_bytes:
            break
        target.write(piece)
    if size_bytes != artifact.size_bytes or digest.hexdigest() != artifact.sha256:
        raise ClientError(
            f"{artifact.name}: expected {artifact.size_bytes:,} bytes with sha256 {artifact.sha256}, received others; "
            "download it again; if that does not help, the file is damaged where the service keeps it",
            type=DAMAGED,
        )


def save(artifact: Artifact, pieces: Iterable[bytes], folder: Path) -> Path:
    """Write an artifact below `folder` under its name, replacing what was there; return its path.

    The file appears complete and checked, or not at all.

    Raises:
        ClientError: Its content is damaged, its name leads out of `folder`, or it cannot be written there.

    """
    target = folder / artifact.name
    if folder.resolve() not in target.resolve().parents:
        raise ClientError(f"the service offers a file outside its folder: {artifact.name!r}", type=DAMAGED)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = file.name
            receive(artifact, pieces, file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise ClientError(
            f"{target}: cannot be written ({error.strerror}); choose another folder", type="unwritable-folder"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # gone already where all went well
    return target
