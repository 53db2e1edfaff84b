"""Budgets: what can be written, what is refused and why."""

import pytest

from autoprune.costs.budget import Budget, holds
from autoprune.errors import BudgetError, InfeasibleBudgetError, UnknownNameError

FULL = {"macs": 1000, "params": 200, "bytes": 800}
SMALLEST = {"macs": 100, "params": 20, "bytes": 80}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("macs=50%", {"macs": 500}),
        ("flops = 50 %", {"macs": 500}),
        ("macs=0.9k", {"macs": 900}),
        ("params=1e2", {"params": 100}),
        ("bytes=0.5KB", {"bytes": 500}),
        ("bytes=0.5KiB", {"bytes": 512}),
        ("macs=33.3%,params=40%", {"macs": 333, "params": 80}),
    ],
)
def test_budgets_people_write(text: str, limits: dict[str, int]) -> None:
    assert Budget.parse(text).resolve(FULL, SMALLEST) == limits


@pytest.mark.parametrize(
    "text", ["", "50%", "macs", "macs=", "macs=fifty%", "macs=0", "macs=0%", "macs=-5%", "macs=200%", "macs=100%",
             "macs=nan", "macs=inf", "macs=1e999", "macs=5parsec", "macs=50%,", "macs=50%,macs=40%", "macs=1.2.3"],
)  # fmt: skip
def test_malformed_budgets_say_what_is_expected(text: str) -> None:
    with pytest.raises(BudgetError, match=r"expected|example|twice|100%") as caught:
        Budget.parse(text)
    assert not isinstance(caught.value, InfeasibleBudgetError)


def test_unknown_quantity_suggests_the_known_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'params'"):
        Budget.parse("param=50%")


def test_infeasible_budget_states_the_smallest_reachable_value() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"50 of 1,000 asked.*smallest reachable value is 100 \(10\.0%\)"):
        Budget.parse("macs=5%").resolve(FULL, SMALLEST)


def test_a_forgotten_percent_sign_and_ambiguous_flops_are_explained() -> None:
    with pytest.raises(InfeasibleBudgetError, match="Did you mean 50%"):
        Budget.parse("macs=50").resolve(FULL, SMALLEST)
    with pytest.raises(BudgetError, match="twice as many"):
        Budget.parse("flops=30M")
    with pytest.raises(BudgetError, match="needs a unit: latency=2ms"):
        Budget.parse("latency=2")


@pytest.mark.parametrize(
    ("text", "most"), [("latency=50%", 5_000_000), ("latency=4ms", 4_000_000), ("latency=900us", 900_000)]
)
def test_latency_is_limited_in_nanoseconds_where_there_is_a_table(text: str, most: int) -> None:
    budget = Budget.parse(text)
    full, smallest = {**FULL, "latency": 10_000_000}, {**SMALLEST, "latency": 500_000}
    assert budget.resolve(full, smallest) == {"latency": most}
    with pytest.raises(BudgetError, match="give its latency table with --device"):
        budget.resolve(FULL, SMALLEST)
    with pytest.raises(InfeasibleBudgetError, match=r"0\.4 ms of 10 ms asked, the smallest reachable value is 0\.5 ms"):
        Budget.parse("latency=400us").resolve(full, smallest)


def test_budget_that_already_holds_is_refused() -> None:
    with pytest.raises(BudgetError, match="already holds"):
        Budget.parse("macs=2k").resolve(FULL, SMALLEST)


def test_one_loose_limit_beside_a_tight_one_is_fine() -> None:
    limits = Budget.parse("macs=2k,params=50%").resolve(FULL, SMALLEST)
    assert limits == {"macs": 2000, "params": 100}
    assert holds({"macs": 900, "params": 100}, limits)
    assert not holds({"macs": 900, "params": 101}, limits)
