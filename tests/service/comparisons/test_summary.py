"""What runs come to, and what is said of it: pairs, leaders, fronts, proposals, verdicts."""

import math

import pytest
from scipy import stats

from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.comparisons.proposals import proposals_view
from autoprune.service.comparisons.summary import front, milestones
from autoprune.service.comparisons.table import csv_text
from autoprune.service.results.curves import evaluations, seconds
from tests.service.comparison_samples import IMAGES, run, sample_comparison


def said(result: ComparisonResult, policy: str) -> str:
    """Return the verdict on one policy."""
    return next(text for text in result.verdicts if text.startswith(f"{policy} ") and "uniform" in text[len(policy) :])


def test_policies_over_seeds_have_means_with_intervals() -> None:
    result = sample_comparison()
    exact, uniform = result.policy("exact"), result.policy("uniform")
    assert exact is not None
    assert uniform is not None
    assert (exact.seeds, uniform.seeds) == ([0, 1, 2], [])
    half = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert (exact.report.mean, exact.report.low, exact.report.n) == pytest.approx((0.87, 0.87 - half, 3))
    assert (uniform.report.mean, uniform.report.low, uniform.report.high) == (0.80, None, None)


def test_pairs_are_held_against_each_other_by_seed_and_by_image() -> None:
    result = sample_comparison()
    assert len(result.pairs) == 6
    pair, turned = result.pair("exact", "random"), result.pair("random", "exact")
    assert pair is not None
    assert turned is not None
    assert pair.difference.mean == pytest.approx((0.08 + 0.05 + 0.07) / 3)
    assert pair.t_p == pytest.approx(stats.ttest_rel([0.86, 0.87, 0.88], [0.78, 0.82, 0.81]).pvalue)
    assert pair.wilcoxon_p is None
    assert (pair.only_first, pair.only_second) == (16, 0)
    assert pair.mcnemar_p == pytest.approx(2 / 2**16)
    assert turned.difference.high == -(pair.difference.low or 0)
    assert (turned.only_first, turned.only_second, turned.t_p) == (0, 16, pair.t_p)
    without = result.pair("sensitivity", "uniform")
    assert without is not None
    assert (without.difference.n, without.t_p, without.difference.low) == (1, None, None)


def test_who_draws_nothing_is_the_same_for_every_seed() -> None:
    pair = sample_comparison().pair("exact", "uniform")
    assert pair is not None
    assert pair.difference.mean == pytest.approx(0.07)
    assert pair.t_p == pytest.approx(stats.ttest_1samp([0.06, 0.07, 0.08], 0).pvalue)


def test_seeds_that_only_one_of_two_has_are_left_aside() -> None:
    result = sample_comparison({"uniform": (0.8,), "random": (0.7, 0.8), "exact": (0.9, 0.8, 0.1)})
    pair = result.pair("exact", "random")
    assert pair is not None
    assert (pair.difference.n, pair.difference.mean) == (2, pytest.approx(0.1))


def test_verdicts_go_by_the_interval() -> None:
    result = sample_comparison({"uniform": (0.80,), "random": (0.78, 0.82, 0.81), "exact": (0.86, 0.87, 0.88),
                                "amc": (0.70, 0.71, 0.70), "netadapt": (0.85, 0.85, 0.85)})  # fmt: skip
    assert "exact beats uniform by 7.0 points, by more than the interval (95%: +4.5 to +9.5 over 3 seeds, " in said(
        result, "exact"
    )
    assert "paired t-test p = 0.007" in said(result, "exact")
    images = f"Of the {IMAGES} images 12 are right with its delivered network only and 0 with uniform's only"
    assert f"{images}: more than chance (McNemar's p < 0.001)" in said(result, "exact")
    assert "random does not beat uniform by more than the interval: +0.3 points" in said(result, "random")
    assert "on so few images that can be chance" in said(result, "random")
    assert "amc is worse than uniform by 9.7 points, by more than the interval" in said(result, "amc")
    assert "netadapt ends 5.0 points above uniform" in said(result, "netadapt")
    assert "alike with all of 3 seeds: these show no spread" in said(result, "netadapt")


def test_one_seed_shows_nothing_about_the_spread_and_the_words_say_so() -> None:
    result = sample_comparison({"uniform": (0.80,), "random": (0.78,), "exact": (0.80,)})
    assert result.verdicts[0].startswith("With one seed there is no interval, and nothing is shown about the spread")
    assert said(result, "random").startswith("random ends 2.0 points below uniform (78.0% against 80.0%")
    assert said(result, "exact").startswith("exact ends level with uniform")
    assert "are right on the same of the 200 images" in said(result, "exact")
    assert all(policy.report.high is None for policy in result.policies)


def test_the_words_say_who_searched_once_and_what_was_computed() -> None:
    text = " ".join(sample_comparison().verdicts)
    assert "uniform and sensitivity draw nothing and searched once each; the others searched with 3 seeds" in text
    assert "32 trials were asked for and rest on 30 different evaluations; 20 of these were computed now, 10" in text


def test_a_comparison_without_uniform_says_that_it_shows_nothing() -> None:
    result = sample_comparison({"random": (0.7, 0.8), "exact": (0.9, 0.8)})
    assert any("Uniform pruning was left out" in text for text in result.verdicts)


def test_leaders_at_equal_evaluations_need_not_lead_at_equal_time() -> None:
    slow = [run("exact", seed, 0.9, pace=10.0, trials=8) for seed in (0, 1)]
    quick = [run("random", seed, 0.8, pace=0.1) for seed in (0, 1)]
    by_evaluations = milestones([*slow, *quick], evaluations, at=(4,))
    assert [(each.at, each.leaders) for each in by_evaluations] == [(4, ["exact"]), (8, ["exact"])]
    assert by_evaluations[0].best == pytest.approx({"exact": 0.86, "random": 0.8})
    first, last = milestones([*slow, *quick], seconds)
    assert (first.at, first.ends, first.leaders) == (pytest.approx(0.4), ["random"], ["random"])
    assert first.best == {"exact": None, "random": pytest.approx(0.8)}
    assert (last.at, last.ends, last.leaders) == (80, ["exact"], ["exact"])


def test_equals_lead_together() -> None:
    (only,) = milestones([run("exact", 0, 0.9), run("random", 0, 0.9)], evaluations)
    assert only.leaders == only.ends == ["exact", "random"]


def test_times_that_a_journal_did_not_keep_are_not_made_up() -> None:
    result = sample_comparison(pace=None)
    assert result.by_seconds == []
    assert all(policy.seconds is None for policy in result.policies)
    assert any("Who leads at equal time is not known" in text for text in result.verdicts)


def test_the_front_holds_what_nobody_beats_in_both() -> None:
    points = front([run("exact", 0, 0.9), run("random", None, 0.88)], "macs")
    assert [(point.policy, point.trial, point.cost) for point in points] == [("exact", 4, 196_000)]
    cheap = run("random", 1, 0.5)
    cheap = cheap.model_copy(update={"trials": [cheap.trials[0].model_copy(update={"cost": {"macs": 7}})]})
    both = front([run("exact", 0, 0.9), cheap], "macs")
    assert [(point.cost, point.policy, point.seed) for point in both] == [(7, "random", 1), (196_000, "exact", 0)]


def test_what_one_proposed_that_others_did_not() -> None:
    proposed = {"exact": {(1, 2), (3, 4), (5, 6)}, "random": {(1, 2)}, "uniform": {(3, 4)}}
    delivered = {"exact": {"a": 4, "b": 8}, "random": {"a": 8, "b": 8}, "uniform": {"a": 6, "b": 8}}
    found = proposals_view("exact", proposed, delivered, {"a": 10, "b": 10})
    assert (found.distinct, found.alone) == (3, 1)
    assert [(each.group, each.kept, each.others) for each in found.groups] == [("a", 0.4, pytest.approx(0.7))]
    assert proposals_view("random", proposed, delivered, {"a": 10, "b": 10}).alone == 0


def test_the_table_has_a_line_for_every_run() -> None:
    head, *lines = csv_text(sample_comparison()).splitlines()
    names = head.split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    assert len(rows) == 8
    assert (rows[0]["policy"], rows[0]["seed"], rows[0]["report_top1"]) == ("uniform", "", "0.8")
    assert (rows[-1]["policy"], rows[-1]["seed"], rows[-1]["cost_macs"]) == ("exact", "2", "196000")
