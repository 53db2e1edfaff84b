"""Pruning in rounds trains, prunes and rewinds as the papers say, and a run that was killed ends in the same bytes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import Cancelled, PlanError, SearchError
from autoprune.network.masked import masked
from autoprune.network.network import Network
from autoprune.recovery.finetune import finetune
from autoprune.training.iterative_pruning import Ticket, prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.masks import MaskKeeper, kept_weights, smaller_masks
from autoprune.training.penalties import WeightL1
from autoprune.training.rounds import exponential, kept_count
from autoprune.training.weight_scores import magnitude, weights_of
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, digits_network, digits_splits
from tests.autoprune.training.killed_pruning import IMAGES, STEPS, run, settings

TOTAL = sum(weight.numel() for weight in weights_of(digits_network()).values())


@cache
def ticket(rewind_step: int | None = 3) -> Ticket:
    return run(None, rewind_step=rewind_step)


def lesson() -> tuple[Tensor, Tensor | None]:
    fit = digits_splits().fit
    return fit.inputs[:IMAGES], None if fit.labels is None else fit.labels[:IMAGES]


def equal(a: Network, b: Network) -> bool:
    return a.fingerprint() == b.fingerprint()


def same(a: Ticket, b: Ticket) -> bool:
    pairs = list(zip(a.rounds, b.rounds, strict=True))
    masks = all(torch.equal(one.masks[name], two.masks[name]) for one, two in pairs for name in one.masks)
    networks = all(equal(one.network, two.network) and one.losses == two.losses for one, two in pairs)
    return masks and networks and equal(a.start, b.start)


@pytest.mark.parametrize("rewind_step", [0, 3, None])
def test_every_round_keeps_exactly_its_share(rewind_step: int | None) -> None:
    rounds = ticket(rewind_step).rounds
    shares = exponential(0.3, 3) if rewind_step is None else (1.0, *exponential(0.3, 3))
    assert [kept_weights(each.masks) for each in rounds] == [kept_count(TOTAL, share) for share in shares]
    for each in rounds:
        for name, weight in weights_of(each.network).items():
            assert torch.equal(weight != 0, each.masks[name])


@pytest.mark.parametrize("rewind_step", [0, 3])
def test_rewound_weights_are_those_of_the_step_and_are_trained_from_there(rewind_step: int) -> None:
    found, training = ticket(rewind_step), settings().training
    states: dict[int, dict[str, Tensor]] = {}

    def remember(module: nn.Module, done: int) -> None:
        states[done] = {name: value.clone() for name, value in module.state_dict().items()}

    whole = finetune(digits_network().module, *lesson(), training, after_step=remember, device=CPU).module
    states[0] = digits_network().module.state_dict()
    assert found.rounds[0].network.fingerprint() == Network(whole, (1, 8, 8), found.start.shapes).fingerprint()
    start = found.start.module.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in states[rewind_step].items())
    for number in (1, 2, 3):
        before, after = found.rounds[number - 1], found.rounds[number]
        masks = smaller_masks(before.masks, magnitude(before.network), settings().shares[number - 1])
        assert all(torch.equal(mask, after.masks[name]) for name, mask in masks.items())
        again = finetune(
            masked(found.start, masks).module, *lesson(), replace(training, seed=training.seed + number),
            after_step=MaskKeeper(masks), first_step=rewind_step, device=CPU,
        ).module  # fmt: skip
        assert all(
            torch.equal(a, b) for a, b in zip(again.parameters(), after.network.module.parameters(), strict=True)
        )


def test_without_rewinding_weights_go_on_from_the_round_before() -> None:
    found, training = ticket(None), settings(None).training
    assert equal(found.start, digits_network())
    before, after = found.rounds[0], found.rounds[1]
    module = masked(before.network, after.masks).module
    again = finetune(
        module, *lesson(), replace(training, seed=training.seed + 1), after_step=MaskKeeper(after.masks), device=CPU
    ).module
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), after.network.module.parameters(), strict=True))


def test_penalty_and_score_are_used() -> None:
    inputs, labels = lesson()
    one_round = IterativeSettings(replace(FROM_SCRATCH, epochs=1), (0.5,), None, "layer")

    def largest_go(network: Network) -> dict[str, Tensor]:
        return {name: -weight.abs() for name, weight in weights_of(network).items()}

    plain = prune_in_rounds(digits_network(), inputs, labels, one_round, device=CPU).trained
    pulled = prune_in_rounds(digits_network(), inputs, labels, one_round, penalty=WeightL1(0.01), device=CPU).trained
    assert weights_of(pulled)["conv3"].abs().sum() < 0.7 * weights_of(plain)["conv3"].abs().sum()
    small = prune_in_rounds(digits_network(), inputs, labels, one_round, score=largest_go, device=CPU)
    at_first = weights_of(digits_network())["conv3"]
    assert at_first[small.masks["conv3"]].abs().max() <= at_first[~small.masks["conv3"]].abs().min()


def test_a_run_that_was_stopped_goes_on_to_the_same_result(tmp_path: Path) -> None:
    def stop(done: int, total: int, text: str) -> None:
        assert total == 4 * STEPS
        if done == 2 * STEPS + 5:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run(tmp_path, stop)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["round-00.safetensors", "round-01.safetensors"]
    steps: list[int] = []
    resumed = run(tmp_path, lambda done, total, text: steps.append(done))
    assert min(steps) == 2 * STEPS + 3 + 1  # at the step rewound to
    assert same(resumed, ticket())
    untouched: list[int] = []
    assert same(run(tmp_path, lambda done, total, text: untouched.append(done)), ticket())
    assert untouched == []


def test_a_killed_process_goes_on_to_the_same_result(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.autoprune.training.killed_pruning", str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 2 * STEPS + 5:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert same(run(tmp_path), ticket())


def test_files_that_are_damaged_or_of_other_settings_are_not_used_and_the_latter_stay(tmp_path: Path) -> None:
    run(tmp_path)
    _, second, *_ = sorted(tmp_path.glob("*/*"))
    second.write_bytes(second.read_bytes()[:-7])
    assert same(run(tmp_path), ticket())
    done = {path: path.read_bytes() for path in tmp_path.glob("*/*")}
    assert same(run(tmp_path, rewind_step=0), ticket(0))
    assert {path: path.read_bytes() for path in done} == done
    assert len(list(tmp_path.iterdir())) == 2


def test_collapse_stops_a_run_before_the_layer_is_gone() -> None:
    network = digits_network()
    with torch.no_grad():
        network.layers()["conv2"].get_parameter("weight").mul_(1e-6)
    harsh = IterativeSettings(replace(FROM_SCRATCH, epochs=1), (0.5,), None)
    with pytest.raises(PlanError, match="layer collapse: 'conv2'"):
        prune_in_rounds(network, *lesson(), harsh, device=CPU)


def test_settings_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(SearchError, match="below 10, the number of steps of one training, found 10"):
        run(None, rewind_step=10)
    with pytest.raises(SearchError, match="at least 0, or None, found -1"):
        settings(-1)
    with pytest.raises(SearchError, match="at least 1 epoch"):
        IterativeSettings(replace(FROM_SCRATCH, epochs=0), (0.5,))
