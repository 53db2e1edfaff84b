"""The speeds that a search relies on; the best of several runs, so that other work on the machine does not count."""

import time
from collections.abc import Callable

import pytest

from autoprune.groups.channel_group import find_groups
from autoprune.pruning.surgery import prune
from autoprune.zoo.registry import build
from tests.oracles import random_plan

pytestmark = pytest.mark.timing


def _best_seconds(action: Callable[[], object], runs: int = 7) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.parametrize("name", ["resnet56_cifar", "mobilenet_v2"])
def test_groups_are_found_in_under_two_seconds(name: str) -> None:
    network = build(name)
    assert _best_seconds(lambda: find_groups(network), runs=3) < 2.0


def test_a_candidate_of_resnet56_is_built_in_under_20_ms() -> None:
    network = build("resnet56_cifar")
    groups = find_groups(network)
    plan = random_plan(groups.prunable(), 0, ratio=0.5)
    assert _best_seconds(lambda: prune(network, groups, plan)) < 0.020
