"""ONNX files quantised to int8 by onnxruntime's own static quantiser.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

The form is QDQ: operators between pairs of QuantizeLinear and DequantizeLinear, which runtimes turn into integer
kernels. Activations are uint8 and weights int8 with a scale per channel: with int8 activations onnxruntime 1.31 leaves
half of the convolutions of a ResNet in float32 on x86.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from autoprune.errors import ExportError
from autoprune.formats.onnx_export import write_file

#: Images that ranges of activations are taken from: with twice as many no network measured was more accurate.
CALIBRATION_IMAGES = 256

#: Images at a time.
_BATCH_SIZE = 32

#: How the quantiser is told that a file needs no preparation: batch norms are folded into convolutions already.
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantize_onnx(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Write an int8 file of a network that :func:`autoprune.formats.onnx_export.export_onnx` wrote.

    The range of every activation is that of the smallest and largest value on `images`; the same images give the same
    file. It takes and returns float32, like `source`.

    Args:
        source: The float32 file.
        target: File to write or replace; it appears complete or not at all.
        images: Images as the network will see them, ``(n, C, H, W)``, normalised.

    Raises:
        ExportError: No images, or nothing in the network could be quantised.

    """
    if len(images) == 0:
        raise ExportError("int8: expected images to take the ranges of activations from, found none")
    with tempfile.TemporaryDirectory(prefix="autoprune-int8-") as folder:
        prepared, made = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        model = onnx.load(source)
        onnx.helper.set_model_props(model, _PREPARED)
        onnx.save(model, prepared)
        quantize_static(
            prepared,
            made,
            _Images(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(made)
    if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
        raise ExportError(f"int8: onnxruntime quantises no layer of {source.name}; use the float32 file")
    del quantized.metadata_props[:]
    quantized.producer_name = model.producer_name
    onnx.checker.check_model(quantized, full_check=True)
    write_file(quantized.SerializeToString(deterministic=True), target)


class _Images:
    """Hands the quantiser images, batch after batch (its ``CalibrationDataReader``)."""

    def __init__(self, name: str, images: NDArray[np.float32]) -> None:
        self._batches = iter(
            {name: images[start : start + _BATCH_SIZE]} for start in range(0, len(images), _BATCH_SIZE)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch by the name of the input, None after the last."""
        return next(self._batches, None)
