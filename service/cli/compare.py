"""The command ``compare``: one whole comparison in this process."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoprune.service.cli.console import print_files, stdout
from autoprune.service.cli.search import chosen_cluster, chosen_folder, default_folder, run_in_folder
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.comparisons.comparison_result import FILE, ComparisonResult
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import TABLE, run_comparison
from autoprune.service.comparisons.words import interval_text, proposals_text
from autoprune.service.results.job_result import REPORT
from autoprune.service.results.wording import best_outcome, duration, metric, model_name, percent
from autoprune.service.specs.reading import read_as


def run_compare_command(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or an interruption (:class:`Cancelled`).

    """
    spec = read_as(ComparisonSpec, spec_values(params))
    default = default_folder(spec)
    directory = chosen_folder(params, default.with_name(f"{default.name}-comparison"))
    result = run_in_folder(spec, directory, partial(run_comparison, cluster=chosen_cluster(params)))
    if params["as_json"]:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_comparison(stdout(), result, directory)


def print_comparison(console: Console, result: ComparisonResult, directory: Path) -> None:
    """Print all policies over their seeds, what that shows, and where the files lie."""
    print_policies(console, result)
    console.print()
    best = best_outcome(result.delivered)
    print_files(console, {**best.artifacts, "report": REPORT, "table": TABLE, "all": FILE}, directory)


def print_policies(console: Console, result: ComparisonResult) -> None:
    """Print all policies over their seeds, and what that shows."""
    console.print(_policies_table(result))
    console.print(
        f"[bold]best: {escape(result.delivered.best)}[/] (of all final networks its is the best on the search images)"
    )
    for text in result.verdicts:
        console.print(escape(text))
    for text in result.delivered.warnings:
        console.print(f"[yellow]warning:[/] {escape(text)}")


def _policies_table(result: ComparisonResult) -> Table:
    """Table of all policies beside the unpruned network: means over seeds, with half of the 95% interval."""
    delivered, score = result.delivered, metric(result.delivered)
    table = Table(
        title=f"{model_name(delivered)}, {delivered.budget}: {score.label}, mean ± half of the 95% interval over seeds",
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    table.add_column("policy")
    for head in ("report", "search", "trials", "search\ntime", "seeds", "proposed by\nit alone"):
        table.add_column(head, justify="right")
    unpruned = [percent(score.of(scores)) for scores in (delivered.report, delivered.search)]
    table.add_row("unpruned", *unpruned, "-", "-", "-", "-", style="dim")
    for policy in result.policies:
        table.add_row(
            escape(policy.policy),
            interval_text(policy.report),
            interval_text(policy.search_final),
            f"{policy.trials:,.0f}",
            "-" if policy.seconds is None else duration(policy.seconds.mean),
            str(len(policy.seeds) or "-"),
            proposals_text(policy),
            style="green" if policy.policy == delivered.best else "",
        )
    return table
