"""What the commands ``study ...`` do: one whole study in this process."""

from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoprune.service.cli.console import print_files, stdout
from autoprune.service.cli.search import run_in_folder
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.results.job_result import REPORT
from autoprune.service.results.wording import duration
from autoprune.service.specs.reading import read_as
from autoprune.service.specs.study_spec import JOB_FIELDS, StudySpec
from autoprune.service.studies.run import run_study
from autoprune.service.studies.study_result import FILE, TABLE, CurveView, StudyResult
from autoprune.service.studies.words import TITLES, final_rows, verdict


def run_study_command(study: str, params: Mapping[str, object]) -> None:
    """Run one kind of study on a command's parameters.

    Raises:
        AutopruneError: Bad input, a study that does not fit it, or an interruption (:class:`Cancelled`).

    """
    spec = read_as(StudySpec, study_values(study, params))
    directory = Path(str(params["output"]))
    result = run_in_folder(spec, directory, run_study)
    if params["as_json"]:
        typer.echo(result.model_dump_json(indent=1))
        return
    console = stdout()
    print_study(console, result)
    print_files(console, {"report": REPORT, "table": TABLE, "all": FILE}, directory)


def study_values(study: str, params: Mapping[str, object]) -> dict[str, object]:
    """Turn a command's parameters into the settings of a :class:`StudySpec`."""
    shared = {name: value for name, value in params.items() if name in (*JOB_FIELDS, "weights")}
    own = {name: value for name, value in params.items() if name not in (*shared, "output", "as_json")}
    own = {name: value for name, value in own.items() if value not in (None, [], ())}
    if own.get("channels") == 0:
        own["channels"] = None
    return {**spec_values(shared), "study": study, study: own}


def print_study(console: Console, result: StudyResult) -> None:
    """Print what a study found."""
    table = Table(title=TITLES[result.study], title_justify="left", title_style="bold", header_style="bold")
    head, rows = _rows(result)
    table.add_column(head[0])
    for text in head[1:]:
        table.add_column(text, justify="right")
    for cells in rows:
        table.add_row(*map(escape, cells))
    console.print(table)
    for text in verdict(result):
        console.print(escape(text), soft_wrap=True)
    if result.oracle is not None:
        for name, why in result.oracle.left_out.items():
            console.print(f"[dim]{escape(name)} is left out: {escape(why)}[/]", soft_wrap=True)
    console.print(f"{duration(result.seconds)}\n")


def _rows(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the table of a study."""
    if result.oracle is not None:
        found = [(each.criterion, each.together.spearman, each.together.kendall) for each in result.oracle.criteria]
        rows = [[name, *("-" if value is None else f"{value:.3f}" for value in figures)] for name, *figures in found]
        return ["criterion", "Spearman", "Kendall"], rows
    if result.study == "schedule":
        return final_rows(result)
    shares = (0.25, 0.5, 0.75)
    rows = [
        [curve.group, str(curve.channels), curve.recovery, *(_nearest(curve, share) for share in shares)]
        for curve in result.curves
    ]
    return ["group", "channels", "after the cut", *(f"about {share:.0%} removed" for share in shares)], rows


def _nearest(curve: CurveView, share: float) -> str:
    """Return the quality at the point of a curve that is nearest to a share removed, and that point's share."""
    removed, quality = min(zip(curve.removed, curve.quality, strict=True), key=lambda point: abs(point[0] - share))
    return f"{quality:.1%} ({removed:.0%})"
