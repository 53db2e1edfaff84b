"""A network from what a user names: an ONNX file, or an architecture and its safetensors."""

from pathlib import Path

from autoprune.errors import ModelError
from autoprune.formats.onnx_import import import_onnx
from autoprune.formats.weights import load_weights
from autoprune.network.batchnorm import insert_batchnorm
from autoprune.network.network import Network, Shape
from autoprune.zoo.registry import ARCHITECTURES, build


def load_network(
    source: str | Path,
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    input_shape: Shape | None = None,
) -> Network:
    """Return the network that `source` names, with batch norm after every convolution.

    Args:
        source: An ``.onnx`` file, or a ``.safetensors`` file with the weights of `architecture`.
        architecture: A name of the zoo, for weights.
        num_classes: Size of the architecture's output; its usual one by default.
        input_shape: Shape of one image, ``(C, H, W)``; what the file or the architecture says by default.

    Raises:
        ModelError: The file is missing, of another kind, unsafe or broken; or the architecture is not named.
        UnknownNameError: No such architecture.

    """
    path = Path(source)
    if path.suffix.lower() == ".safetensors":
        if architecture is None:
            known = ", ".join(ARCHITECTURES)
            raise ModelError(f"{path.name} holds weights only; name their architecture as well, one of: {known}")
        network = build(architecture, num_classes=num_classes, input_shape=input_shape)
        return insert_batchnorm(load_weights(network, path))
    if path.suffix.lower() == ".onnx":
        if architecture is not None:
            raise ModelError(f"{path.name} describes its own architecture; leave out the architecture {architecture!r}")
        return insert_batchnorm(import_onnx(path, input_shape=input_shape))
    if str(source) in ARCHITECTURES:
        raise ModelError(f"{source} names an architecture without weights; give its .safetensors file (--weights)")
    if not path.exists():
        known = ", ".join(ARCHITECTURES)
        raise ModelError(
            f"model {source} does not exist; expected an .onnx or .safetensors file, or an architecture, one of: "
            f"{known}"
        )
    raise ModelError(
        f"{source}: expected an .onnx file, or a .safetensors file and its architecture; "
        "other formats (.pt, .pth, .pkl) can run code when they are opened and are not read"
    )
