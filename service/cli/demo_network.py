"""The demo's network: a small CNN with a residual block, trained on scikit-learn's digits in seconds."""

from collections.abc import Callable

import torch
from torch import fx, nn

from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.splits import make_splits
from autoprune.evaluation.metrics import score
from autoprune.network.layers import Add, Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.recovery.finetune import FinetuneSettings, finetune

#: Seed of the splits, of the weights and of the job: the search and report images of the job stay unseen in training.
SEED = 0

EPOCHS = 8


def demo_network(seed: int = SEED) -> Network:
    """Return the untrained network: six convolutions, 0.5 million MACs on one 8x8 image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        b = NetworkBuilder("image", (1, 8, 8))
        stem = _unit(b, b.input, 1, 12, "stem")
        second = _unit(b, stem, 12, 16, "second")
        pooled = b.add(nn.MaxPool2d(2), second, name="pool")
        inner = _unit(b, pooled, 16, 24, "block.inner")
        outer = _unit(b, inner, 24, 16, "block.outer", activation=False)
        joined = b.add(nn.ReLU(), b.add(Add(), outer, pooled, name="block.add"), name="block.relu")
        third = _unit(b, joined, 16, 32, "third")
        fourth = _unit(b, third, 32, 48, "fourth")
        flat = b.add(Reshape((-1, 48)), b.add(nn.AdaptiveAvgPool2d(1), fourth, name="average"), name="flatten")
        return b.finish(b.add(nn.Linear(48, 10), flat, name="classifier"))


def train_demo_network(
    progress: Callable[[int, int, str], None] = lambda *_: None, *, epochs: int = EPOCHS
) -> tuple[Network, fx.GraphModule, float]:
    """Train the network on the fit split alone; return it, its trained module, and its accuracy on the search split."""
    splits = make_splits(load_digits_dataset(), seed=SEED)
    network = demo_network()
    settings = FinetuneSettings(
        epochs=epochs,
        optimizer="sgd",
        learning_rate=0.1,
        warmup_epochs=0,
        batch_size=32,
        freeze_batchnorm=False,
        augment=False,
        flip=False,
        seed=SEED,
    )
    trained, _ = finetune(
        network.module, splits.fit.inputs, splits.fit.labels, settings, progress=progress, device=torch.device("cpu")
    )
    accuracy = score(trained, splits.search.inputs, splits.search.labels).top1
    assert accuracy is not None, "digits have labels"
    return network, trained, accuracy


def _unit(b: NetworkBuilder, source: fx.Node, into: int, out: int, name: str, *, activation: bool = True) -> fx.Node:
    """Add convolution, batch norm and ReLU."""
    conv = b.add(nn.Conv2d(into, out, 3, padding=1, bias=False), source, name=f"{name}.conv")
    norm = b.add(nn.BatchNorm2d(out), conv, name=f"{name}.bn")
    return b.add(nn.ReLU(), norm, name=f"{name}.relu") if activation else norm
