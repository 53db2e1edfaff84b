"""int8 files beside the float32 ones they were made of: how they are made, and what that costs in accuracy."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.datasets.splits import Splits
from autoprune.evaluation.metrics import Scores
from autoprune.files import file_sha256
from autoprune.formats.onnx_int8 import CALIBRATION_IMAGES, quantize_onnx


@dataclass(frozen=True, slots=True)
class Quantized:
    """One int8 file.

    Attributes:
        path: The file.
        calibration_images: Fit images that the ranges of its activations were taken from.
        search: Its scores on the search split, in onnxruntime.
        search_fp32: Those of the float32 file, likewise.

    """

    path: Path
    calibration_images: int
    search: Scores
    search_fp32: Scores

    def to_dict(self) -> dict[str, object]:
        """Return what a certificate says about it."""
        return {
            "onnx_sha256": file_sha256(self.path),
            "file_bytes": self.path.stat().st_size,
            "calibration_images": self.calibration_images,
            "search": self.search.to_dict(),
            "search_fp32": self.search_fp32.to_dict(),
        }


def int8_path(onnx: Path) -> Path:
    """Return where the int8 file of a float32 file lies: ``model.int8.onnx`` beside ``model.onnx``."""
    return onnx.with_name(f"{onnx.stem}.int8.onnx")


def quantized(onnx: Path, splits: Splits, score: Callable[[Path], Scores]) -> Quantized:
    """Write the int8 file of `onnx`, calibrated on fit images, and score both with `score`, on the search split.

    Raises:
        ExportError: Nothing in the network could be quantised.

    """
    images = calibration_images(splits)
    path = int8_path(onnx)
    quantize_onnx(onnx, path, images)
    return Quantized(path, len(images), score(path), score(onnx))


def calibration_images(splits: Splits, most: int = CALIBRATION_IMAGES) -> NDArray[np.float32]:
    """Return the first `most` fit images, ``(n, C, H, W)``; the fit split is in random order."""
    return splits.fit.inputs[:most].numpy()
