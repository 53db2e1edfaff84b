"""ONNX files run in onnxruntime, on the processor."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

#: Images at a time.
BATCH_SIZE = 250


def run_onnx(path: Path, images: NDArray[np.float32], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
    """Return what a network of one input and one output makes of `images`, on one thread.

    Args:
        path: The file.
        images: ``(n, C, H, W)``.
        batch_size: Images at a time.

    Returns:
        The outputs, ``(n, ...)``.

    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    starts = range(0, len(images), batch_size)
    return np.concatenate([session.run(None, {name: images[start : start + batch_size]})[0] for start in starts])
