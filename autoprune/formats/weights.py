"""Weights as safetensors: no code in the file, every tensor checked."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, fx

from autoprune.errors import ModelError
from autoprune.files import write_whole
from autoprune.network.network import Network, own_copy


def save_weights(module: fx.GraphModule, path: Path) -> None:
    """Write all parameters and buffers of `module`, completely or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(module).items()}
    write_whole(path, save(tensors))


def load_weights(network: Network, path: Path) -> Network:
    """Return a copy of `network` with the weights of a safetensors file.

    Raises:
        ModelError: The file is unreadable, or a tensor is missing, unknown, of another shape or not finite.

    """
    try:
        tensors = load_file(path)
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a readable safetensors file (truncated, or another format): {error}"
        ) from error
    expected = _state(network.module)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(
            f"{path.name} does not hold the weights of this network: "
            f"missing {_some(missing)}, unknown {_some(unknown)}; is it another architecture or another plan?"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{path.name}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}; "
                "is it another number of classes, another width or another plan?"
            )
        if not tensor.is_floating_point():
            raise ModelError(f"{path.name}: {name} holds {tensor.dtype}; expected floating-point weights")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path.name}: {name} holds NaN or infinite values")
    module = network.with_layers({name: own_copy(layer) for name, layer in network.layers().items()})
    with torch.no_grad():
        for name, tensor in _state(module).items():
            tensor.copy_(tensors[name])
    return Network(module, network.input_shape, network.shapes)


def _state(module: fx.GraphModule) -> dict[str, Tensor]:
    """Parameters and buffers by name, without batch norm's step counters, which nothing here uses."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")}


def _some(names: list[str]) -> str:
    """List a few names."""
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "nothing"
