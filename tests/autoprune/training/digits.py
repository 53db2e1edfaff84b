"""What is trained in these tests: a small CNN with batch norms, on the handwritten digits."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.splits import SearchSplits, make_splits
from autoprune.evaluation.metrics import score
from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.recovery.finetune import FinetuneSettings, finetune

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


#: How :func:`lenet` is trained.
TRAINING = replace(FROM_SCRATCH, epochs=6, learning_rate=0.02)


def pair(images: int | None = None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the first digits to train on, and those to score on, with their labels."""
    splits = digits_splits()
    assert splits.fit.labels is not None
    assert splits.search.labels is not None
    fit = (splits.fit.inputs[:images], splits.fit.labels[:images])
    return fit, (splits.search.inputs, splits.search.labels)


@cache
def lenet() -> Network:
    """LeNet for 8x8 images, trained: 20 and 40 channels, 60 hidden neurons, no batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        b = NetworkBuilder("image", (1, 8, 8))
        x = b.add(nn.ReLU(), b.add(nn.Conv2d(1, 20, 3), b.input, name="conv1"), name="relu1")
        x = b.add(nn.ReLU(), b.add(nn.Conv2d(20, 40, 3), x, name="conv2"), name="relu2")
        x = b.add(Reshape((-1, 160)), b.add(nn.MaxPool2d(2), x, name="pool"), name="flat")
        x = b.add(nn.ReLU(), b.add(nn.Linear(160, 60), x, name="fc1"), name="relu3")
        network = b.finish(b.add(nn.Linear(60, 10), x, name="fc2"))
    module = finetune(network.module, *pair()[0], TRAINING, device=CPU).module
    return Network(module, network.input_shape, network.shapes)
