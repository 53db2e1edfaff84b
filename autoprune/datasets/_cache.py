"""Decoded datasets on disk: one folder per dataset, written whole or not at all, verified when read."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from autoprune.datasets.dataset import ImageDataset
from autoprune.errors import DatasetError

IMAGES_FILE = "images.npy"
_LABELS_FILE = "labels.npy"
_FACTS_FILE = "dataset.json"
_WORKSPACE_PREFIX = ".building-"
_ABANDONED_AFTER_S = 24 * 3600.0

Built = tuple[npt.NDArray[np.int64] | None, Sequence[str]]
"""What a builder returns beside the images it wrote: labels ``(N,)`` or None, and the class names."""


def default_cache_dir() -> Path:
    """Return ``$AUTOPRUNE_CACHE``, or ``~/.cache/autoprune`` where that is not set."""
    return Path(os.environ.get("AUTOPRUNE_CACHE") or Path.home() / ".cache" / "autoprune")


def load_or_build(cache_dir: Path | None, key: str, name: str, build: Callable[[Path], Built]) -> ImageDataset:
    """Return the dataset cached under `key`, or build it and cache it.

    `build` gets an empty folder and writes ``images.npy`` there, ``(N, C, H, W)`` uint8. Nothing stays behind when
    it raises. Several processes may do this at once: each builds for itself, the first to finish is kept. A damaged
    entry (its content does not have the recorded hash) is rebuilt. The images are memory-mapped, copy on write.

    Raises:
        DatasetError: The cache folder cannot be written.

    """
    folder = (cache_dir or default_cache_dir()) / "datasets"
    entry = folder / key
    cached = _read(entry, name)
    if cached is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        workspace = Path(tempfile.mkdtemp(prefix=_WORKSPACE_PREFIX, dir=folder))
    except OSError as error:
        raise _cache_error(folder, error) from error
    try:
        fresh = workspace / "entry"
        fresh.mkdir()
        _write(fresh, name, build(fresh))
        _publish(fresh, entry, workspace)
    except OSError as error:
        raise _cache_error(folder, error) from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    built = _read(entry, name)
    if built is None:
        raise DatasetError(f"{entry}: what was just written cannot be read back. Check the disk, or delete the folder.")
    return built


def _read(entry: Path, name: str) -> ImageDataset | None:
    """Return the dataset in `entry`, or None where there is none or it is damaged."""
    try:
        facts = json.loads((entry / _FACTS_FILE).read_text(encoding="utf-8"))
        images = np.load(entry / IMAGES_FILE, mmap_mode="c", allow_pickle=False)
        labels = np.load(entry / _LABELS_FILE, allow_pickle=False) if facts["labelled"] else None
        dataset = ImageDataset.of(
            torch.from_numpy(images), None if labels is None else torch.from_numpy(labels), facts["class_names"], name
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError, DatasetError):
        return None
    return dataset if dataset.sha256 == facts.get("sha256") else None


def _write(entry: Path, name: str, built: Built) -> None:
    """Complete the folder in which the builder wrote the images."""
    labels, class_names = built
    images = torch.from_numpy(np.load(entry / IMAGES_FILE, mmap_mode="c", allow_pickle=False))
    dataset = ImageDataset.of(images, None if labels is None else torch.from_numpy(labels), class_names, name)
    if labels is not None:
        np.save(entry / _LABELS_FILE, labels, allow_pickle=False)
    facts = {"labelled": labels is not None, "class_names": list(class_names), "sha256": dataset.sha256}
    (entry / _FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")


def _remove_abandoned(folder: Path) -> None:
    """Delete what builders that were killed left behind, a day later."""
    for workspace in folder.glob(f"{_WORKSPACE_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its builder has just finished
            if time.time() - workspace.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(workspace, ignore_errors=True)


def _publish(fresh: Path, entry: Path, workspace: Path) -> None:
    """Move a complete folder to its place; a damaged one in that place goes to the workspace, which is deleted."""
    if entry.exists() and _read(entry, "") is None:
        entry.rename(workspace / "damaged")
    try:
        fresh.rename(entry)
    except OSError:
        if not entry.exists():  # else another process was faster: the same content
            raise


def _cache_error(folder: Path, error: OSError) -> DatasetError:
    """Say that the cache cannot be written and what to do."""
    return DatasetError(
        f"cannot write decoded images to {folder} ({error}). "
        f"Free some space, or set AUTOPRUNE_CACHE to a writable folder."
    )
