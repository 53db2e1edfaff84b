"""Channels go in turn with training until the loss has risen by the tolerance; better scores let more of them go."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.criteria.members import Scores
from autoprune.errors import NumericalError, SearchError
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.pruning.surgery import prune
from autoprune.studies.schedules import ScheduleSettings, run_schedule
from autoprune.training.channel_removal import ChannelsRemoved, RemovalSettings, l2, remove_while_training
from tests.autoprune.training.digits import CPU, TRAINING, accuracy, lenet, pair

SETTINGS = RemovalSettings(replace(TRAINING, learning_rate=0.005), channels=4, minibatches=4, tolerance=0.05)


def taylor(network: Network, groups: ChannelGroups) -> Scores:
    """Score a channel by (sum of gradient x weight)^2 over the weights that make it."""
    images, labels = (each[:128] for each in pair()[0])
    layers = {name: layer for name, layer in network.layers().items() if isinstance(layer, nn.Conv2d | nn.Linear)}
    weights = [layer.weight.requires_grad_(True) for layer in layers.values()]
    gradients = torch.autograd.grad(F.cross_entropy(network.module(images), labels), weights)
    scores = np.zeros(groups.n_units)
    for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
        channels = groups.layers[name].output
        if channels is not None:
            sums = (gradient * layer.weight).flatten(1).sum(1).detach().double().square()
            np.add.at(scores, channels.ids, sums.numpy())
    return scores


def largest_first(network: Network, groups: ChannelGroups) -> Scores:
    return -l2(network, groups)


@cache
def removed(settings: RemovalSettings = SETTINGS, score: object = taylor) -> ChannelsRemoved:
    assert callable(score)
    return remove_while_training(lenet(), *pair(), settings, score=score, device=CPU)


def test_channels_go_until_the_loss_has_risen_by_the_tolerance() -> None:
    found = removed()
    first, *_, before, last = found.history
    assert first.removed == 0
    assert last.loss > first.loss + SETTINGS.tolerance >= before.loss
    assert [each.removed for each in found.history] == list(range(0, last.removed + 1, 4))
    kept = {name: len(indices) for name, indices in found.plan.kept.items()}
    assert kept.keys() == {"conv1", "conv2", "fc1"}
    assert sum(kept.values()) == 120 - before.removed
    assert before.removed >= 20  # of 120
    assert accuracy(found.network.module) > accuracy(lenet().module) - 0.03


def test_the_plan_is_that_of_the_trained_network() -> None:
    found = removed()
    cut = prune(lenet(), find_groups(lenet()), found.plan)
    trained = {name: value.shape for name, value in found.network.module.state_dict().items()}
    assert {name: value.shape for name, value in cut.state_dict().items()} == trained
    without_training = replace(SETTINGS, training=replace(SETTINGS.training, learning_rate=1e-30), most=24)
    same = remove_while_training(lenet(), *pair(), without_training, device=CPU)
    images = pair()[1][0]
    by_plan = prune(lenet(), find_groups(lenet()), same.plan)
    torch.testing.assert_close(same.network.module(images), by_plan(images), rtol=1e-5, atol=1e-5)


def test_better_scores_let_more_channels_go() -> None:
    worst = removed(SETTINGS, largest_first).history
    assert removed().history[-1].removed > worst[-1].removed + 12


def test_results_repeat_and_progress_is_told() -> None:
    few, told = replace(SETTINGS, most=10, tolerance=10.0), []
    again = remove_while_training(
        lenet(), *pair(), few, score=taylor, progress=lambda done, total, text: told.append((done, total)), device=CPU
    )
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert again.network.fingerprint() == removed(few).network.fingerprint()
    assert again.plan == removed(few).plan
    assert again.history == removed(few).history


def test_every_group_keeps_a_channel() -> None:
    everything = replace(SETTINGS, channels=50, minibatches=1, tolerance=1e9)
    found = removed(everything)
    assert {name: len(indices) for name, indices in found.plan.kept.items()} == {"conv1": 1, "conv2": 1, "fc1": 1}
    assert found.history[-1].removed == 117


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"channels": 0}, {"minibatches": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}):
        with pytest.raises(SearchError, match="removing channels needs"):
            replace(SETTINGS, **wrong)
    with pytest.raises(SearchError, match="at least 1 channel"):
        replace(SETTINGS, most=0)
    with pytest.raises(SearchError, match="at least 1 removal"):
        replace(SETTINGS, removals=0)
    b = NetworkBuilder("image", (1, 2, 2))
    linear = b.finish(b.add(nn.Linear(4, 2), b.add(Reshape((-1, 4)), b.input, name="flat"), name="only"))
    with pytest.raises(SearchError, match="no channels that can be removed"):
        remove_while_training(linear, *pair(), SETTINGS, device=CPU)
    with pytest.raises(NumericalError, match="finite scores"):
        remove_while_training(
            lenet(), *pair(), SETTINGS, score=lambda _, groups: np.full(groups.n_units, np.nan), device=CPU
        )


class IndexedRows(TorchDispatchMode):
    """Remembers the most rows of images of one channel that were picked out of others at once."""

    most = 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.index.Tensor and result.dim() == 4 and result.shape[1] == 1:
            self.most = max(self.most, len(result))
        return result


def test_training_that_takes_images_over_and_over_again_holds_one_minibatch_of_copies() -> None:
    fit, judge = pair(64)
    settings = replace(SETTINGS, training=replace(SETTINGS.training, batch_size=16), minibatches=20, most=4)
    with IndexedRows() as rows:
        remove_while_training(lenet(), fit, judge, settings, device=CPU)
        schedule = ScheduleSettings(replace(settings.training, epochs=5), 0.5, 2)
        run_schedule(lenet(), fit, judge, schedule, l2)
    assert rows.most == 16
