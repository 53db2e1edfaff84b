"""What a job has found so far, as its page shows it while it runs, and after an end without a result."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from autoprune.costs.quantities import shown
from autoprune.service.engine.service import Service
from autoprune.service.pages.rendering import figures_json, trusted
from autoprune.service.reports.html import table
from autoprune.service.reports.job_report import search_figures
from autoprune.service.reports.sections import groups_section, plots_section
from autoprune.service.results.live_search import LivePolicy, LiveSearch, read_live
from autoprune.service.results.wording import QUANTITY_LABELS, metric, percent

#: Keeps a plot's element, and what plotly.js drew there, when htmx puts in a new version of what is around it.
_PRESERVED = 'hx-preserve="true"'


@dataclass(frozen=True, slots=True)
class Live:
    """The searches of a job on their way, as HTML.

    Attributes:
        table: Every search: trials, the best so far, and what that costs.
        plots: Elements of the plots.
        groups: What the best of every search keeps of every group.
        figures: What is drawn in them.
        trials: How many there are: the more, the less often all of them should be sent.

    """

    table: Markup
    plots: Markup
    groups: Markup
    figures: Markup
    trials: int


def live(service: Service, job_id: str) -> Live | None:
    """Return what the searches of a job found so far; None before the first trial, and once the job is done."""
    search = read_live(service.settings.artifact_folder(job_id))
    if search is None or not search.outcomes:
        return None
    kept, *others = search_figures(search)
    plots = [*others, kept]
    return Live(
        trusted(_table(search)),
        trusted(plots_section([plot[:3] for plot in plots], _PRESERVED)),
        trusted(groups_section(search)),
        figures_json({element: figure for element, _, _, figure in plots}),
        sum(len(found.trials) for found in search.outcomes),
    )


def _table(search: LiveSearch) -> str:
    """All searches side by side; the text alternative of the plots."""
    score = metric(search)
    head = ["policy", "trials", f"best {score.label}", *(QUANTITY_LABELS.get(name, name) for name in search.limits)]
    budget = ["budget", "-", "-", *(shown(name, limit) for name, limit in search.limits.items())]
    unpruned = ["unpruned", "-", percent(score.of(search.search))]
    unpruned += [shown(name, search.cost[name]) for name in search.limits]
    rows = [unpruned, budget, *(_cells(found, list(search.limits)) for found in search.outcomes)]
    note = f"Best candidate so far of every policy, on {search.search.images:,} search images, and what it costs."
    return table(head, rows, note, kinds=["unpruned", "unpruned", *("" for _ in search.outcomes)])


def _cells(found: LivePolicy, quantities: Sequence[str]) -> list[str]:
    """One search: cells of its row."""
    if found.best is None:
        return [escape(found.policy), f"{len(found.trials):,}", "-", *("-" for _ in quantities)]
    costs = [shown(name, found.best.cost[name]) for name in quantities]
    return [escape(found.policy), f"{len(found.trials):,}", percent(found.best.objective), *costs]
