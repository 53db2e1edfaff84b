"""What is trained in these tests: a small CNN with batch norms, on the handwritten digits."""

from functools import cache

import torch
from torch import nn

from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.splits import SearchSplits, make_splits
from autoprune.evaluation.metrics import score
from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.recovery.finetune import FinetuneSettings

CPU = torch.device("cpu")

FROM_SCRATCH = FinetuneSettings(
    epochs=6,
    optimizer="sgd",
    learning_rate=0.1,
    warmup_epochs=0,
    batch_size=32,
    distillation=0,
    hints=0,
    freeze_batchnorm=False,
    augment=False,
    flip=False,
)


def digits_network(seed: int = 0) -> Network:
    """Return an untrained network: four convolutions with batch norms, and a linear head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        b = NetworkBuilder("image", (1, 8, 8))
        x, channels = b.input, 1
        for number, width in enumerate((16, 24, 32, 48)):
            x = b.add(nn.Conv2d(channels, width, 3, padding=1, bias=False), x, name=f"conv{number}")
            x = b.add(nn.ReLU(), b.add(nn.BatchNorm2d(width), x, name=f"norm{number}"), name=f"relu{number}")
            if number == 1:
                x = b.add(nn.MaxPool2d(2), x, name="pool")
            channels = width
        flat = b.add(Reshape((-1, channels)), b.add(nn.AdaptiveAvgPool2d(1), x, name="average"), name="flat")
        return b.finish(b.add(nn.Linear(channels, 10), flat, name="head"))


@cache
def digits_splits() -> SearchSplits:
    """Return the digits: 70% to train on, 15% to score on."""
    return make_splits(load_digits_dataset(), seed=0).for_search()


def accuracy(module: nn.Module) -> float:
    """Return the share of search digits that are told right."""
    search = digits_splits().search
    top1 = score(module, search.inputs, search.labels, device=CPU).top1
    assert top1 is not None
    return top1
