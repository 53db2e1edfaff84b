"""The commands on stored latency tables: ``device import``, ``list``, ``show``, ``diff`` and ``merge``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from autoprune.latency_tables.table import LatencyTable, TableDiff
from autoprune.service.cli.console import stderr, stdout
from autoprune.service.cli.errors import CommandError
from autoprune.service.devices.tables import (
    TableStore,
    check_is_of,
    count_dropped,
    dropped_warning,
    find_table,
    table_id,
)
from autoprune.service.reports.table_report import write_table_report
from autoprune.service.rest.device_views import LatencyTableView

_SHOWN_CHANGES = 30


def run_import(params: Mapping[str, object]) -> None:
    """Check a table and keep it.

    Raises:
        AutopruneError: The file is no table that can be used, is of another device, or cannot be stored.

    """
    table = LatencyTable.load(Path(str(params["file"])))
    if params["device"] is not None:
        check_is_of(table, str(params["device"]))
    stored, is_new = TableStore().add(table, replace=bool(params["replace"]))
    if stored.dropped:
        stderr().print(f"warning: {escape(dropped_warning(stored.dropped))}")
    view = LatencyTableView.of(stored)
    if params["as_json"]:
        typer.echo(view.model_dump_json(indent=1))
        return
    how = "kept" if is_new else "replaces" if params["replace"] else "merged into"
    stdout().print(f"{how} [bold]{escape(stored.id)}[/]: {view.units:,} timed units; {_errors(table)}")
    stdout().print(f"use it with --device {escape(table.conditions.device)}")


def run_list(*, as_json: bool) -> None:
    """List the stored tables."""
    views = [LatencyTableView.of(stored) for stored in TableStore().all()]
    if as_json:
        typer.echo(json.dumps([view.model_dump(mode="json") for view in views], indent=1))
        return
    if not views:
        stdout().print(
            "no latency tables yet: autoprune device measure MODEL, or autoprune device pack MODEL -o FOLDER"
        )
        return
    table = Table()
    for column in ("device", "runtime", "precision", "threads", "units", "networks", "mean error", "measured", "id"):
        table.add_column(
            column, justify="right" if column in ("threads", "units", "networks", "mean error") else "left"
        )
    for view in views:
        errors = [calibration.error for calibration in view.calibrations.values()]
        table.add_row(
            escape(view.device), escape(view.runtime), view.precision, str(view.threads), f"{view.units:,}",
            str(len(errors)), f"{max(errors):.1%}" if errors else "-", escape(view.measured_at or "-"), escape(view.id),
        )  # fmt: skip
    stdout().print(table)


def run_show(name: str, report: Path | None, *, as_json: bool) -> None:
    """Show one table; errors as of :func:`autoprune.service.devices.tables.find_table`."""
    table = find_table(name)
    if report is not None:
        try:
            write_table_report(table, report)
        except OSError as error:
            raise CommandError(f"--report {report}: cannot be written ({error.strerror})") from error
    if as_json:
        typer.echo(LatencyTableView.of_table(table_id(table.conditions), table).model_dump_json(indent=1))
        return
    console = stdout()
    for key, value in {**table.conditions.to_dict(), **table.provenance}.items():
        console.print(f"  {escape(key):<20} {escape(str(value))}")
    console.print(f"  {'predictions':<20} {_errors(table)}\n")
    shown = Table()
    for column in ("unit", "channels in", "channels out", "points", "fastest us", "slowest us"):
        shown.add_column(column, justify="left" if column == "unit" else "right")
    for shape in table.shapes:
        rows, columns = table.widths(shape)
        times = [timing.median_us for unit, timing in table.entries.items() if unit.shape == shape]
        shown.add_row(
            escape(str(shape).replace(" 0->0", "")), _range(rows.tolist()), _range(columns.tolist()), str(len(times)),
            f"{min(times):,.1f}", f"{max(times):,.1f}",
        )  # fmt: skip
    console.print(shown)


def run_diff(before: str, after: str, *, as_json: bool) -> None:
    """Compare two tables; errors as of :func:`autoprune.service.devices.tables.find_table`."""
    found = find_table(before).diff(find_table(after))
    if as_json:
        typer.echo(json.dumps(_diff_data(found), indent=1))
        return
    console = stdout()
    console.print(escape(f"conditions differ: {found.conditions}" if found.conditions else "the same conditions"))
    console.print(
        f"{len(found.changed)} units with other times, {len(found.added)} added, {len(found.removed)} removed"
    )
    for change in found.changed[:_SHOWN_CHANGES]:
        times = f"{change.before.median_us:,.1f} -> {change.after.median_us:,.1f} us"
        console.print(f"  {change.ratio:6.2f}x  {times:<26} {escape(str(change.unit))}")
    if len(found.changed) > _SHOWN_CHANGES:
        console.print(f"  and {len(found.changed) - _SHOWN_CHANGES} more; --json lists all")


def run_merge(names: Sequence[str], output: Path) -> None:
    """Merge tables into a file.

    Raises:
        AutopruneError: A table cannot be used, they are of different conditions, or the file cannot be written.

    """
    if len(names) < 2:
        raise CommandError(f"expected two tables or more, found {len(names)}")
    merged, *others = parts = [find_table(name) for name in names]
    for other in others:
        merged = merged.merged(other)
    merged.save(output)
    if dropped := count_dropped(parts, merged):
        stderr().print(f"warning: {escape(dropped_warning(dropped))}")
    stdout().print(f"written: [bold]{escape(str(output))}[/]  {len(merged.entries):,} timed units; {_errors(merged)}")


def _errors(table: LatencyTable) -> str:
    """Return in words how far predictions are from whole networks."""
    errors = [calibration.error for calibration in table.calibrations.values()]
    if not errors:
        return "never compared with networks measured whole"
    return f"mean error {max(errors):.1%} of networks measured whole" + (
        f" (the worst of {len(errors)} networks)" if len(errors) > 1 else ""
    )


def _range(widths: Sequence[int]) -> str:
    """Return the first and the last of rising widths."""
    return str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"


def _diff_data(found: TableDiff) -> dict[str, object]:
    """Return a comparison as JSON-ready data."""
    changed = [
        {
            "unit": change.unit.to_dict(),
            "before_us": change.before.median_us,
            "after_us": change.after.median_us,
            "ratio": change.ratio,
        }
        for change in found.changed
    ]
    added, removed = ([unit.to_dict() for unit in units] for units in (found.added, found.removed))
    return {"conditions": found.conditions, "changed": changed, "added": added, "removed": removed}
