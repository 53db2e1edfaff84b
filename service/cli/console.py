"""What the commands write to the terminal: progress on stderr, results on stdout."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoprune.service.results import wording
from autoprune.service.results.job_result import REPORT, GroupView, JobResult, PolicyOutcome


def stdout() -> Console:
    """Console for results; wide enough for tables where the output is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(120, console.width))


def stderr() -> Console:
    """Console for progress and notes."""
    return Console(stderr=True, highlight=False)


@contextmanager
def stop_on_interrupt(console: Console) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to stop, and the second into an interruption at once."""
    asked = False

    def ask(_: int, __: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        console.print("[yellow]stopping after the current step; Ctrl-C again stops at once[/]")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def groups_table(groups: list[GroupView], searched: set[str]) -> Table:
    """Table of all channel groups: who can be pruned, who cannot and why."""
    table = Table(title="channel groups", title_justify="left", title_style="bold", header_style="bold", box=None)
    table.add_column("group", overflow="fold", min_width=12)
    table.add_column("channels", justify="right")
    table.add_column("MACs", justify="right")
    table.add_column("params", justify="right")
    table.add_column("cut together with it", overflow="fold", ratio=2)
    table.add_column("", ratio=2)
    for group in groups:
        status, style = group_status(group, group.name in searched)
        table.add_row(
            escape(group.name),
            f"{group.units:,}",
            wording.percent(group.macs_share),
            wording.percent(group.params_share),
            escape(_members(group)),
            escape(status),
            style=style,
        )
    return table


def group_status(group: GroupView, searched: bool) -> tuple[str, str]:
    """Say whether a group can be pruned, and the style it is shown in."""
    if group.frozen is not None:
        return f"frozen: {group.frozen}", "dim"
    if searched:
        return ("prunable (residual stream)" if group.residual else "prunable"), ""
    return "residual stream: --include-residual" if group.residual else "left whole", "yellow"


def comparison_table(result: JobResult) -> Table:
    """Table of all policies beside the unpruned network."""
    score = wording.metric(result)
    tuned = any(outcome.report_finetuned is not None for outcome in result.outcomes)
    table = Table(
        title=f"{wording.model_name(result)}, {result.budget}: {score.label}",
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    table.add_column("policy")
    heads = ["report,\npruned", *(["report,\nfine-tuned"] if tuned else [])]
    heads += ["search,\npruned", *(["search,\nfine-tuned"] if tuned else [])]
    quantities = wording.shares(result, result.cost)
    heads += [f"{wording.QUANTITY_LABELS.get(name, name)}\nleft" for name in quantities]
    for head in (*heads, "evalu-\nations", "search\ntime"):
        table.add_column(head, justify="right")
    blank = ["-"] if tuned else []
    unpruned = ["unpruned", wording.percent(score.of(result.report)), *blank]
    unpruned += [wording.percent(score.of(result.search)), *blank, *("100.0%" for _ in quantities), "-", "-"]
    table.add_row(*unpruned, style="dim")
    for outcome in result.outcomes:
        table.add_row(
            *_policy_cells(result, outcome, tuned=tuned), style="green" if outcome.policy == result.best else ""
        )
    return table


def print_comparison(console: Console, result: JobResult) -> None:
    """Print all policies side by side, which one was chosen, and whether the search was worth it."""
    console.print(comparison_table(result))
    console.print(f"[bold]best: {escape(result.best)}[/] (its final network is best on the search images)")
    for text in wording.verdicts(result):
        console.print(escape(text))
    for text in result.warnings:
        console.print(f"[yellow]warning:[/] {escape(text)}")


def print_result(console: Console, result: JobResult, directory: Path) -> None:
    """Print the comparison, what it means, and where the files lie."""
    best = wording.best_outcome(result)
    print_comparison(console, result)
    console.print()
    print_files(console, {**best.artifacts, "report": REPORT}, directory)


def print_files(console: Console, names: Mapping[str, str], directory: Path) -> None:
    """Print where files lie, by kind."""
    files = Table(box=None, show_header=False, pad_edge=False)
    for kind, name in names.items():
        files.add_row(f"  {escape(kind)}", escape(str(directory / name)))
    console.print(files)


def _policy_cells(result: JobResult, outcome: PolicyOutcome, *, tuned: bool) -> list[str]:
    """Cells of one policy."""
    score = wording.metric(result)
    cells = [escape(outcome.policy), wording.percent(score.of(outcome.report))]
    cells += [wording.percent(score.of(outcome.report_finetuned))] if tuned else []
    cells += [wording.percent(score.of(outcome.search_pruned))]
    cells += [wording.percent(score.of(outcome.search_finetuned))] if tuned else []
    cells += [wording.percent(share) for share in wording.shares(result, outcome.cost).values()]
    return [*cells, f"{outcome.evaluations:,}", wording.duration(outcome.seconds)]


def _members(group: GroupView) -> str:
    """List what a group cuts, shortened."""
    others = [name for name in (*group.producers, *group.consumers) if name != group.name]
    distinct = list(dict.fromkeys(others))
    shown = ", ".join(distinct[:3])
    return shown if len(distinct) <= 3 else f"{shown}, ... {len(distinct) - 3} more"
