"""Training: it learns, it repeats to the bit, and it goes on where it was killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune.costs.budget import Budget
from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.splits import SearchSplits, make_splits
from autoprune.errors import Cancelled, DatasetError, NumericalError, SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.network.network import Network
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from autoprune.pruningnet.predicted_evaluator import PredictedEvaluator
from autoprune.pruningnet.pruningnet import PruningNet
from autoprune.pruningnet.settings import PruningNetSettings, distilled, from_scratch
from autoprune.pruningnet.training import check_memory, train_pruningnet
from autoprune.pruningnet.widths import random_plan
from autoprune.service.cli.demo_network import train_demo_network
from tests.autoprune.pruningnet import killed_training
from tests.autoprune.pruningnet.killed_training import STEPS, digest, run
from tests.search.small_problems import real_splits, small_problem

ROOT = Path(__file__).parents[3]


@cache
def digits() -> tuple[PruningProblem, SearchSplits, list[Plan]]:
    """A trained network, and plans of many widths."""
    network, module, _ = train_demo_network(epochs=3)
    trained = Network(module, network.input_shape, network.shapes)
    problem = pruning_problem(trained, Budget.parse("macs=50%"))
    generator = np.random.default_rng(7)
    return problem, make_splits(load_digits_dataset()).for_search(), [random_plan(problem, generator) for _ in range(6)]


def mean_top1(net: PruningNet) -> float:
    problem, splits, plans = digits()
    evaluator = PredictedEvaluator(Evaluator(problem, splits), net)
    return float(np.mean([evaluator.evaluate(plan).objective for plan in plans]))


def test_distilled_it_learns_all_widths() -> None:
    problem, splits, _ = digits()
    net, losses = train_pruningnet(problem, splits.fit, distilled(epochs=6, augment=False), images=640)
    untrained = PruningNet(problem, scratch=False, hidden=32, seed=0)
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert mean_top1(net) > mean_top1(untrained) + 0.1
    assert not net.training


def test_from_scratch_it_learns_from_labels() -> None:
    problem, splits, _ = digits()
    net, losses = train_pruningnet(problem, splits.fit, from_scratch(epochs=4, augment=False), images=600)
    assert losses[-1] < losses[0] - 0.2
    assert mean_top1(net) > 0.3  # a tenth by chance


def test_without_labels_the_unpruned_network_teaches() -> None:
    problem, splits, _ = digits()
    fit = replace(splits.fit, labels=None)
    for settings in (distilled(epochs=1), from_scratch(epochs=1)):
        _, losses = train_pruningnet(problem, fit, settings, images=64)
        assert losses[0] > 0
    assert train_pruningnet(problem, fit, distilled(epochs=1), images=64).losses == (
        train_pruningnet(problem, splits.fit, distilled(epochs=1), images=64).losses
    )


def test_bf16_is_another_training() -> None:
    problem, splits, _ = digits()
    losses = [
        train_pruningnet(problem, splits.fit, distilled(epochs=1), images=64, precision=each).losses[0]
        for each in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_same_again_whatever_the_global_random_state(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, before = run(tmp_path / "first"), torch.get_rng_state()
    torch.manual_seed(2)
    second = run(None)
    assert (first.net.fingerprint(), first.losses) == (second.net.fingerprint(), second.losses)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 4, 21])
def test_cancelled_and_run_again_it_ends_the_same(tmp_path: Path, stop: int) -> None:
    """In the middle of an epoch, at its end, at the very first step; the optimizer's state counts."""
    seen: list[int] = []

    def cancel(done: int, total: int, text: str) -> None:
        seen.append(done)
        if done == stop:
            raise Cancelled(text)

    with pytest.raises(Cancelled, match=r"epoch \d+ of 6, loss"):
        run(tmp_path / "stopped", cancel)
    resumed = run(tmp_path / "stopped", lambda done, total, text: seen.append(done))
    whole = run(tmp_path / "whole")
    assert seen == list(range(1, STEPS + 1))
    assert (resumed.net.fingerprint(), resumed.losses) == (whole.net.fingerprint(), whole.losses)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    assert run(tmp_path / "whole", lambda *_: pytest.fail("trained again")).losses == whole.losses


def test_killed_and_run_again_it_ends_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.autoprune.pruningnet.killed_training", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 10:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    steps: list[int] = []
    resumed = run(tmp_path / "killed", lambda done, total, text: steps.append(done))
    assert 10 < steps[0] < STEPS
    assert resumed.losses == run(tmp_path / "whole").losses
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def of_another_training(file: Path) -> None:
    other = replace(killed_training.settings(), hidden=5)
    train_pruningnet(small_problem(), real_splits().fit, other, checkpoint=file, images=8)


@pytest.mark.parametrize("harm", [Path.unlink, truncated, of_another_training])
def test_a_checkpoint_of_no_use_is_replaced(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    whole = run(tmp_path / "file")
    harm(tmp_path / "file")
    steps: list[int] = []
    again = run(tmp_path / "file", lambda done, total, text: steps.append(done))
    assert len(steps) == STEPS
    assert again.net.fingerprint() == whole.net.fingerprint()


def test_without_a_place_for_checkpoints_it_trains_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert run(tmp_path / "file" / "checkpoint").losses == run(None).losses


def test_images_and_labels_are_checked() -> None:
    splits, problem = real_splits(), small_problem()
    with pytest.raises(DatasetError, match="at least 2 images of the fit split, found 1"):
        train_pruningnet(problem, splits.fit, distilled(epochs=1), images=1)
    assert splits.fit.labels is not None
    with pytest.raises(DatasetError, match="expected labels from 0 to 4"):
        train_pruningnet(problem, replace(splits.fit, labels=splits.fit.labels + 9), distilled(epochs=1))
    with pytest.raises(NumericalError, match="diverged: at step 1 the loss is not finite"):
        train_pruningnet(problem, replace(splits.fit, inputs=splits.fit.inputs * torch.nan), distilled(epochs=1))


def test_a_training_without_the_memory_for_it_is_refused() -> None:
    check_memory(small_problem(), distilled(epochs=1))
    with pytest.raises(SearchError, match=r"takes about \d+\.\d GB of memory, this machine has \d"):
        check_memory(small_problem(), replace(distilled(epochs=1), hidden=10**9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "at least 1 hidden unit, found 0"),
        ({"training": replace(distilled(epochs=1).training, epochs=0)}, "at least 1 epoch, found 0"),
        ({"training": replace(distilled(epochs=1).training, hints=1.0)}, "without hints"),
        ({"training": replace(distilled(epochs=1).training, freeze_batchnorm=True)}, "statistics of every batch"),
    ],
)
def test_settings_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        PruningNetSettings(**{"training": distilled(epochs=1).training, **change})  # type: ignore[arg-type]
