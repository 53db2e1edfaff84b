"""A softmax at the end of a network changes no loss: criteria, training and the oracle see the logits before it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.criteria.channels import score_units
from autoprune.criteria.data import CriterionData
from autoprune.evaluation.metrics import predict
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Reshape
from autoprune.network.logits import final_softmax
from autoprune.network.network import Network, NetworkBuilder
from autoprune.recovery.finetune import FinetuneSettings, finetune
from autoprune.studies.oracle import loss_of
from autoprune.training.channel_removal import RemovalSettings, remove_while_training

CPU = torch.device("cpu")
TRAINING = FinetuneSettings(epochs=2, batch_size=16, freeze_batchnorm=False, augment=False, flip=False)
IMAGES = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 4


def network(*, softmax: bool) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        b = NetworkBuilder("image", (1, 8, 8))
        x = b.add(nn.ReLU(), b.add(nn.Conv2d(1, 8, 3), b.input, name="conv"), name="relu")
        x = b.add(Reshape((-1, 8)), b.add(nn.AdaptiveAvgPool2d(1), x, name="pool"), name="flat")
        x = b.add(nn.Linear(8, 4), x, name="head")
        if softmax:
            x = b.add(Reshape((-1, 4)), b.add(nn.Softmax(1), x, name="shares"), name="end")
    return b.finish(x)


PLAIN, ENDED = network(softmax=False), network(softmax=True)


def test_only_a_softmax_over_classes_at_the_end_counts() -> None:
    assert final_softmax(ENDED.module) == "shares"
    assert final_softmax(PLAIN.module) is None
    assert final_softmax(nn.Sequential(nn.Softmax(1))) is None  # no canonical network


@pytest.mark.parametrize("criterion", ["taylor", "group-taylor", "taylor-gate", "fisher", "grasp", "synflow"])
def test_criteria_score_as_without(criterion: str) -> None:
    data = CriterionData(IMAGES, LABELS)
    plain, ended = (score_units(each, find_groups(each), criterion, data) for each in (PLAIN, ENDED))
    (group,) = find_groups(PLAIN).prunable()
    (same,) = find_groups(ENDED).prunable()
    assert np.array_equal(plain[list(group.units)], ended[list(same.units)])


def test_training_and_losses_are_those_without_and_the_softmax_stays() -> None:
    assert loss_of(PLAIN.module, IMAGES, LABELS) == loss_of(ENDED.module, IMAGES, LABELS)
    before = ENDED.fingerprint()
    plain, ended = (
        finetune(each.module, IMAGES, LABELS, TRAINING, teacher=copy.deepcopy(each.module), device=CPU)
        for each in (PLAIN, ENDED)
    )
    assert [epoch.loss for epoch in plain.history] == [epoch.loss for epoch in ended.history]
    assert torch.equal(predict(plain.module, IMAGES).softmax(1), predict(ended.module, IMAGES))
    assert ENDED.fingerprint() == before


def test_channels_are_removed_within_the_same_tolerance() -> None:
    settings = RemovalSettings(TRAINING, channels=2, minibatches=2, tolerance=0.01)
    plain, ended = (
        remove_while_training(each, (IMAGES, LABELS), (IMAGES, LABELS), settings, device=CPU) for each in (PLAIN, ENDED)
    )
    assert plain.history == ended.history
