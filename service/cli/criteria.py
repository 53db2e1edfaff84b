"""The command ``criteria``: what channels and weights can be ranked by."""

import json
from dataclasses import asdict

import typer
from rich.table import Table

from autoprune.criteria.catalog import CRITERIA
from autoprune.service.cli.console import stdout


def run_criteria(*, as_json: bool) -> None:
    """List all criteria."""
    if as_json:
        criteria = [asdict(criterion) for criterion in CRITERIA.values()]
        typer.echo(json.dumps({"format": "autoprune-criteria/1", "criteria": criteria}, indent=1))
        return
    table = Table(header_style="bold")
    table.add_column("criterion", no_wrap=True)
    for head in ("a channel's or weight's score; the highest stay", "scores", "needs", "paper"):
        table.add_column(head)
    table.add_column("arXiv", no_wrap=True)
    for criterion in CRITERIA.values():
        needs = ", ".join(criterion.needs) or "-"
        scored = ", ".join(f"{each}s" for each in criterion.granularities)
        table.add_row(criterion.name, criterion.meaning, scored, needs, criterion.paper, criterion.arxiv or "-")
    stdout().print(table)
