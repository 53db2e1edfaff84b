"""The command ``what-if``: what other budgets would cost, from a finished search."""

from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoprune.costs.quantities import shown
from autoprune.service.cli.console import stdout
from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.pipeline.what_if import MEANING, BudgetView, WhatIfView, what_if
from autoprune.service.results import wording

_METRICS = {metric.field: metric.label for metric in (wording.TOP1, wording.AGREEMENT)}


def run_what_if(folder: Path, budgets: list[str], *, as_json: bool) -> None:
    """Answer for `budgets` from the job in `folder`.

    Raises:
        AutopruneError: No finished search there, or a budget that cannot be reached.

    """
    view = what_if(folder / EVIDENCE, budgets)
    if as_json:
        typer.echo(view.model_dump_json(indent=1))
    else:
        _show(stdout(), view)


def _show(console: Console, view: WhatIfView) -> None:
    """Print the answers for people."""
    console.print(
        f"[bold]{_METRICS[view.metric]} on {view.images:,} search images[/]; "
        f"unpruned {wording.percent(view.unpruned)}. Predicted from {view.trials:,} candidates, nothing was run."
    )
    console.print(MEANING)
    console.print(_curve(view))
    for each in view.budgets:
        for line in _details(view, each):
            console.print(line, soft_wrap=True)
    if view.gain is not None:
        gain = view.gain
        best, allocation = wording.percent(gain.best), wording.percent(gain.allocation)
        how = "" if gain.allocation_measured else " (predicted)"
        console.print(
            f"Predictions are of allocations by reconstruction errors. At {escape(gain.budget)} searching gained "
            f"{100 * gain.gain:+.1f} points over that: the best of {gain.evaluations:,} candidates has {best} "
            f"({escape(gain.policy)}), the allocation {allocation}{how}.",
            soft_wrap=True,
        )


def _curve(view: WhatIfView) -> Table:
    """Table of all budgets: what is expected, what it costs."""
    quantities = [
        name for name in view.unpruned_cost if name != "bytes" or any("bytes" in b.limits for b in view.budgets)
    ]
    table = Table(header_style="bold")
    table.add_column("budget")
    for head in ("expected", f"{view.level:.0%} interval", *(wording.QUANTITY_LABELS[name] for name in quantities)):
        table.add_column(head, justify="right")
    table.add_column("best evaluated within")
    for each in view.budgets:
        costs = [
            f"{shown(name, each.cost[name])} ({each.cost[name] / view.unpruned_cost[name]:.1%})" for name in quantities
        ]
        within = "-" if each.within is None else f"{wording.percent(each.within.score)} ({each.within.policy})"
        table.add_row(escape(each.budget), wording.percent(each.score), _interval(each), *costs, escape(within))
    return table


def _interval(answer: BudgetView) -> str:
    """Say how sure an answer is."""
    if answer.measured:
        return "evaluated"
    return f"{answer.low:.1%} to {answer.high:.1%}" + (", extrapolated" if answer.extrapolated else "")


def _details(view: WhatIfView, answer: BudgetView) -> list[str]:
    """Return what is assumed for one budget, and what is known near it."""
    kept = ", ".join(f"{name} {count}" for name, count in answer.kept.items())
    lines = [f"[bold]{escape(answer.budget)}[/] assumes (channels kept): {escape(kept)}"]
    if not answer.measured:
        near, score = answer.nearest, wording.percent(answer.nearest.score)
        share = ", ".join(f"{name} {near.cost[name] / view.unpruned_cost[name]:.1%}" for name in answer.limits)
        lines.append(
            f"  [dim]error {answer.error:.3g}; nearest evaluated: error {near.error:.3g}, {score} "
            f"({escape(near.policy)}, {share})[/]"
        )
    return lines
