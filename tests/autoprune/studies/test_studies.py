"""Studies agree with what they are made of: masks, evaluations, rank statistics; and go on where they were stopped."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from autoprune.costs.budget import Budget
from autoprune.criteria.channels import score_units
from autoprune.criteria.data import CriterionData
from autoprune.criteria.members import Scores
from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.network import Network
from autoprune.problem import pruning_problem
from autoprune.pruning.surgery import mask, prune
from autoprune.reconstruction.gram import collect_grams
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.studies.curves import sensitivity_curves
from autoprune.studies.greedy import oracle_scores, remove_greedily, removed_within
from autoprune.studies.notebook import Notebook
from autoprune.studies.oracle import Oracle, leave_one_out, loss_of, without
from autoprune.studies.rank_correlation import agreement, rank_correlation
from autoprune.studies.schedules import ScheduleSettings, run_schedule
from tests.autoprune.training.digits import digits_network, digits_splits, lenet, pair


def test_the_oracle_is_the_loss_of_the_network_with_one_channel_masked() -> None:
    network, (images, labels) = lenet(), pair(200)[0]
    groups = find_groups(network)
    oracle = leave_one_out(network, groups, groups.prunable(), images, labels)
    assert oracle.loss == loss_of(network.module, images, labels)
    for group in groups.prunable():
        assert oracle.channels[group.name] == tuple(range(len(group)))
        for channel in (0, len(group) - 1):
            masked = mask(network, groups, without(group, channel))
            expected = loss_of(masked, images, labels) - oracle.loss
            assert oracle.changes[group.name][channel] == pytest.approx(expected, abs=1e-6)


def test_an_oracle_of_some_channels_is_a_part_of_the_whole_one() -> None:
    network, (images, labels) = lenet(), pair(100)[0]
    groups = find_groups(network)
    whole, some, again, other = (
        leave_one_out(network, groups, groups.prunable(), images, labels, channels=most, seed=seed)
        for most, seed in ((None, 0), (5, 0), (5, 0), (5, 1))
    )
    for name, channels in some.channels.items():
        assert len(channels) == 5
        assert np.array_equal(some.changes[name], whole.changes[name][list(channels)])
    assert some.channels == again.channels != other.channels
    with pytest.raises(SearchError, match="at least 2 channels"):
        leave_one_out(network, groups, groups.prunable(), images, labels, channels=1)


def test_an_oracle_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    network, (images, labels) = lenet(), pair(64)[0]
    groups = find_groups(network)
    path, facts = tmp_path / "notes.jsonl", {"images": 64}

    def stop(done: int, total: int, text: str) -> None:
        if done == 7:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        leave_one_out(network, groups, groups.prunable(), images, labels, notebook=Notebook(path, facts), progress=stop)
    with path.open("a") as stream:
        stream.write('["half a li')  # killed while writing
    notebook = Notebook(path, facts)
    assert len(notebook) == 8  # the whole network, and 7 channels
    resumed = leave_one_out(network, groups, groups.prunable(), images, labels, notebook=notebook)
    whole = leave_one_out(network, groups, groups.prunable(), images, labels)
    for name, changes in whole.changes.items():
        assert np.array_equal(changes, resumed.changes[name])
    assert len(Notebook(path, facts)) == len(notebook)
    assert len(Notebook(path, {"images": 65})) == 0


def test_a_notebook_of_other_facts_is_kept_and_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    Notebook(path, {"images": 64}).get(["whole"], lambda: [0.5])
    other = Notebook(path, {"images": 65})
    assert len(other) == 0
    other.get(["whole"], lambda: [0.7])
    assert Notebook(path, {"images": 64}).get(["whole"], lambda: [9.0]) == [0.5]
    assert Notebook(path, {"images": 65}).get(["whole"], lambda: [9.0]) == [0.7]
    path.write_text("neither facts nor figures")
    assert Notebook(path, {"images": 64}).get(["whole"], lambda: [9.0]) == [0.5]


def test_opening_a_notebook_writes_no_figure_anew(tmp_path: Path) -> None:
    """The process may not write a byte: where opening wrote the file once more, its figures would be lost."""
    path = tmp_path / "notes.jsonl"
    notebook = Notebook(path, {"images": 64})
    notebook.get(["whole"], lambda: [0.5])
    with path.open("a") as stream:
        stream.write('["half a li')
    code = (
        "import resource, signal, sys; from pathlib import Path; from autoprune.studies.notebook import Notebook\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "assert len(Notebook(Path(sys.argv[1]), {'images': 64})) == 1"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert len(Notebook(path, {"images": 64})) == 1


def test_rank_correlations_are_those_of_scipy_and_of_absolute_changes() -> None:
    changes = {"a": np.array([0.5, -2.0, 0.1]), "b": np.array([3.0, 0.2, -0.3])}
    oracle = Oracle(1.0, {"a": (0, 2, 3), "b": (0, 1, 2)}, changes)
    scores = {"a": np.array([2.0, 99.0, 3.0, 1.0]), "b": np.array([1e4, 1e3, 2e3])}
    found = agreement(oracle, scores)
    assert [each.spearman for each in found.layers.values()] == pytest.approx([1.0, 1.0])
    own, truth = [2, 3, 1, 1e4, 1e3, 2e3], [0.5, 2, 0.1, 3, 0.2, 0.3]
    assert found.together.spearman == pytest.approx(stats.spearmanr(own, truth).statistic)
    assert found.together.kendall == pytest.approx(stats.kendalltau(own, truth).statistic)
    lengths = [np.sqrt(14 + 99**2)] * 3 + [1e3 * np.sqrt(105)] * 3  # of all channels, drawn or not
    assert found.normalised.spearman == pytest.approx(stats.spearmanr(np.divide(own, lengths), truth).statistic)
    assert rank_correlation(np.ones(3), np.arange(3.0)).spearman is None


def test_taylor_ranks_the_channels_of_a_lenet_as_the_oracle_does() -> None:
    network, (images, labels) = lenet(), pair(256)[0]
    groups = find_groups(network)
    oracle = leave_one_out(network, groups, groups.prunable(), images, labels)

    def together(criterion: str) -> float:
        scores = score_units(network, groups, criterion, CriterionData(images, labels))
        found = agreement(oracle, {group.name: scores[list(group.units)] for group in groups.prunable()})
        assert found.together.spearman is not None
        return found.together.spearman

    assert together("taylor-gate") > 0.9 > 0.5 > abs(together("random"))


def test_greedy_removal_takes_the_channel_that_the_oracle_names() -> None:
    network, (images, labels) = lenet(), pair(64)[0]
    groups = find_groups(network)
    chosen = groups.prunable()
    score = oracle_scores([group.name for group in chosen], images, labels)
    losses = remove_greedily(network, chosen[:1], score, images, labels, rise=0.05)
    changes = leave_one_out(network, groups, chosen[:1], images, labels).changes[chosen[0].name]
    assert losses[1] - losses[0] == pytest.approx(changes[np.abs(changes).argmin()], abs=1e-6)
    assert all(loss <= losses[0] + 0.05 for loss in losses[:-1])
    assert removed_within(losses, 0.05) == len(losses) - (2 if losses[-1] > losses[0] + 0.05 else 1)
    assert removed_within([1.0, 1.5, 2.1, 1.0], 1.0) == 1
    assert removed_within([1.0, 1.5], 1.0) == 1


def test_curves_are_what_evaluations_say() -> None:
    torch.set_num_threads(1)
    network, splits = digits_network(), digits_splits()
    groups = find_groups(network)
    statistics = collect_grams(network, groups.prunable(), splits.fit.inputs[:200], seed=0)
    problem = pruning_problem(network, Budget.parse("macs=90%"), statistics=statistics, groups=groups)
    orders = dict(zip(problem.names, problem.order, strict=True))
    curves = sensitivity_curves(
        network, groups, orders, splits, steps=1, recoveries=("none", "reconstruction"), statistics=statistics
    )
    evaluator = Evaluator(problem, splits)
    for index, group in enumerate(problem.groups):
        kept = problem.costs.full()
        kept[index] = len(group) // 2
        plan = problem.plan(problem.policy(kept))
        whole, half = curves.of(group.name, "reconstruction")
        scores = evaluator.evaluate(plan)
        assert (half.kept, half.removed) == (len(group) // 2, 0.5)
        assert (half.quality, half.loss) == pytest.approx((scores.objective, scores.regret), abs=1e-6)
        raw = evaluator.score(prune(network, groups, plan))
        assert curves.of(group.name, "none")[1].loss == pytest.approx(raw.regret, abs=1e-6)
        assert (whole.quality, whole.loss) == (evaluator.unpruned().objective, evaluator.unpruned().regret)
    with pytest.raises(SearchError, match="Gram statistics"):
        sensitivity_curves(network, groups, orders, splits, steps=1, recoveries=("reconstruction",))


TRAINING = FinetuneSettings(epochs=2, freeze_batchnorm=False, augment=False, flip=False)


def by_l2(network: Network, groups: ChannelGroups) -> Scores:
    return score_units(network, groups, "l2")


def test_both_schedules_end_within_the_same_macs() -> None:
    fit, judge = pair(256)
    ends = []
    for rounds in (1, 3):
        cuts = run_schedule(lenet(), fit, judge, ScheduleSettings(TRAINING, 0.5, rounds), by_l2)
        assert len(cuts) == rounds
        limits = [1 - 0.5 * (number + 1) / rounds for number in range(rounds)]
        assert all(limit - 0.06 < cut.macs <= limit for cut, limit in zip(cuts, limits, strict=True))
        assert cuts == run_schedule(lenet(), fit, judge, ScheduleSettings(TRAINING, 0.5, rounds), by_l2)
        ends.append(cuts[-1])
    assert all(end.after > end.before for end in ends)


def test_a_schedule_that_cannot_be_kept_is_refused() -> None:
    fit, judge = pair(64)
    with pytest.raises(SearchError, match="more than the"):
        run_schedule(lenet(), fit, judge, ScheduleSettings(TRAINING, 1e-4, 1), by_l2)
    with pytest.raises(SearchError, match="too few"):
        run_schedule(lenet(), fit, judge, ScheduleSettings(replace(TRAINING, epochs=1), 0.5, 20), by_l2)
    with pytest.raises(SearchError, match="share of the MACs"):
        ScheduleSettings(TRAINING, 1.0, 2)


def test_the_network_is_left_as_it_was() -> None:
    network, (fit, judge) = lenet(), pair(64)
    before = network.fingerprint()
    groups = find_groups(network)
    leave_one_out(network, groups, groups.prunable(), *fit, channels=2)
    run_schedule(network, fit, judge, ScheduleSettings(TRAINING, 0.5, 1), by_l2)
    assert network.fingerprint() == before
