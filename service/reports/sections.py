"""Sections of the report as HTML text. Everything that came from outside passes through :func:`html.escape` here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from autoprune.costs.quantities import LATENCY, shown
from autoprune.service.reports.html import card, fact, facts, link, name_list, section, table
from autoprune.service.results.job_result import GroupView, Int8View, JobResult, PolicyOutcome, ScoresView
from autoprune.service.results.searched import Searched
from autoprune.service.results.wording import (
    QUANTITY_LABELS,
    best_outcome,
    duration,
    final_report,
    metric,
    percent,
    shares,
    verdicts,
)


def cards(result: JobResult) -> str:
    """The headline: what became of accuracy, cost and latency under the best policy."""
    best = best_outcome(result)
    score = metric(result)
    final = final_report(best)
    tuned = "fine-tuned" if best.report_finetuned is not None else "not fine-tuned"
    items = [
        card(
            f"{score.label}, report split",
            percent(score.of(final)),
            f"unpruned {percent(score.of(result.report))}; {tuned}",
        )
    ]
    for quantity in dict.fromkeys((*result.limits, "macs", "params")):
        if quantity in result.cost and quantity in best.cost:
            before, after = result.cost[quantity], best.cost[quantity]
            of = shown(quantity, before)
            share = f"{after / before:.1%} of {of}" if before else f"unpruned {of}"
            label = "predicted latency" if quantity == LATENCY else QUANTITY_LABELS.get(quantity, quantity)
            items.append(card(label, shown(quantity, after), share))
    timed = latency_ms(best)
    if timed is not None:
        before_ms, after_ms = timed
        change = f"{before_ms / after_ms:.2f} times as fast" if after_ms < before_ms else "not faster"
        items.append(card("measured latency", f"{after_ms:.3g} ms", f"unpruned {before_ms:.3g} ms; {change}"))
    return f'<div class="cards">{"".join(items)}</div>'


def verdict_section(result: JobResult) -> str:
    """Which policy was taken, and whether the search was worth it."""
    chosen = (
        f"<b>{escape(result.best)}</b> was chosen: its final network is the best of "
        f"{len(result.outcomes)} on the search split. The report split never chooses."
        if len(result.outcomes) > 1
        else f"Only <b>{escape(result.best)}</b> was run."
    )
    lines = [f'<p class="verdict">{escape(text)}</p>' for text in verdicts(result)]
    return section("Was the search worth it?", f"<p>{chosen}</p>{''.join(lines)}")


def policies_section(result: JobResult) -> str:
    """All policies side by side, the unpruned network as the first row."""
    score = metric(result)
    quantities = list(shares(result, result.cost))
    tuned = any(outcome.report_finetuned is not None for outcome in result.outcomes)
    head = ["policy", "report: pruned", *(["report: fine-tuned"] if tuned else [])]
    head += ["search: pruned", *(["search: fine-tuned"] if tuned else [])]
    head += [f"{QUANTITY_LABELS.get(name, name)} left" for name in quantities]
    tail = ["evaluations", "search time", "certificate"]
    timed = latency_ms(best_outcome(result))
    head += ["latency", *tail] if timed else tail
    unpruned = ["unpruned", percent(score.of(result.report)), *(["-"] if tuned else [])]
    unpruned += [percent(score.of(result.search)), *(["-"] if tuned else []), *("100.0%" for _ in quantities)]
    unpruned += [f"{timed[0]:.3g} ms"] if timed else []
    rows = [[*unpruned, "-", "-", ""], *(_policy_cells(result, outcome, tuned=tuned) for outcome in result.outcomes)]
    kinds = ["unpruned", *("best" if outcome.policy == result.best else "" for outcome in result.outcomes)]
    report_images, search_images = result.report.images, result.search.images
    caption = (
        f"{score.label.capitalize()} on {report_images:,} report images (touched once, at the end) and "
        f"{search_images:,} search images (used to choose). Costs are shares of the unpruned network's."
    )
    return section("Policies compared", table(head, rows, caption, kinds=kinds))


def plots_section(plots: Sequence[tuple[str, str, str]], attribute: str = "") -> str:
    """One section per plot: (element id, heading, explanation); every plot's element has the `attribute`, if any."""
    parts = []
    for element, heading, text in plots:
        plot = f'<div class="plot" id="{element}" role="img" aria-label="{escape(heading)}" {attribute}></div>'
        parts.append(section(heading, f'<p class="dim">{escape(text)}</p>{plot}'))
    return "".join(parts)


def fronts_section(result: JobResult, folder: str = ".") -> str:
    """The exported plans of every front, files in `folder`; nothing where nobody looked for one."""
    return "".join(
        _front(result, outcome, outcome.front_quantity, folder) for outcome in result.outcomes if outcome.front_quantity
    )


def _front(result: JobResult, outcome: PolicyOutcome, quantity: str, folder: str) -> str:
    """The exported plans of one front, the dearest first."""
    score, label = metric(result), QUANTITY_LABELS.get(quantity, quantity)
    rows = [
        [
            link(point.artifacts["onnx"], folder),
            percent(point.cost[quantity] / result.cost[quantity]),
            percent(score.of(point.search_refit or point.search)),
            percent(score.of(point.report)),
            "holds" if point.certificate.get("holds") is True else "missing",
        ]
        for point in outcome.front_points
    ]
    head = ["plan", f"{label} left", "search", "report", "certificate"]
    caption = (
        f"{len(rows)} of the {len(outcome.front)} plans that no other trial beats in {score.label} and {label}, before "
        "fine-tuning; each has a plan, weights and a certificate of its own beside its file."
    )
    return section(f"Front of {outcome.policy}", table(head, rows, caption))


def groups_section(result: Searched) -> str:
    """Every channel group: what was kept of it by each policy, or why it was left whole."""
    policies = [outcome.policy for outcome in result.outcomes]
    head = ["group", "channels", "MACs", "parameters", *(escape(name) for name in policies), "note"]
    rows = [_group_cells(result, group) for group in result.groups]
    caption = (
        f"{len(result.decision_groups)} of {len(result.groups)} groups were searched. A group is a set of channels "
        "that can only be removed together. Shares are what hangs on the group; neighbours share layers, so they add "
        "up to more than 100%."
    )
    overview = table(head, rows, caption)
    names = "".join(
        f"<dt><code>{escape(group.name)}</code></dt><dd>produced by {name_list(group.producers)}; "
        f"read by {name_list(group.consumers)}</dd>"
        for group in result.groups
    )
    members = f"<details><summary>Layers of every group</summary><dl>{names}</dl></details>"
    return section("Channel groups", overview + members)


def scores_section(result: JobResult) -> str:
    """All scores of the best policy and of the unpruned network."""
    best = best_outcome(result)
    rows = []
    for label, scores in (
        ("unpruned, report split", result.report),
        ("pruned, report split", best.report),
        ("fine-tuned, report split", best.report_finetuned),
        ("unpruned, search split", result.search),
        ("pruned, search split", best.search),
        ("refitted, search split", best.search_refit),
        ("fine-tuned, search split", best.search_finetuned),
        *_int8_scores("unpruned", result.int8),
        *_int8_scores("pruned", best.int8),
    ):
        if scores is not None:
            rows.append([escape(label), *_score_cells(scores)])
    head = ["network", "top-1", "top-5", "loss", "agreement", "KL divergence", "images"]
    caption = f"Best policy: {result.best}. Agreement and KL divergence compare with the unpruned network's answers."
    return section("All scores", table(head, rows, caption))


def _int8_scores(network: str, int8: Int8View | None) -> list[tuple[str, ScoresView]]:
    """Scores of an int8 file, with what they are of."""
    if int8 is None:
        return []
    return [(f"{network}, int8 file, report split", int8.report), (f"{network}, int8 file, search split", int8.search)]


def certificate_section(outcome: PolicyOutcome) -> str:
    """The certificate of the delivered file: facts measured on the file itself."""
    claims = {key: value for key, value in outcome.certificate.items() if key not in ("latency", "format")}
    parts = [
        "<p>Cost, size, hash, parity and latency are those of the exported ONNX file itself.</p>",
        f"<dl>{facts(claims)}</dl>",
        "<h3>Latency</h3>",
        _latency(outcome.certificate.get("latency")),
    ]
    return section(f"Certificate ({outcome.policy})", "".join(parts))


def warnings_section(warnings: Iterable[str]) -> str:
    """What the reader of the numbers should know; nothing where there is nothing."""
    items = "".join(f'<div class="warning" role="note">{escape(text)}</div>' for text in warnings)
    return section("Warnings", items) if items else ""


def artifacts_section(result: JobResult) -> str:
    """The files of every policy, and how to load the best one's."""
    rows = [
        [_policy_name(result, outcome), escape(kind), link(name)]
        for outcome in result.outcomes
        for kind, name in outcome.artifacts.items()
    ]
    files_table = table(["policy", "kind", "file"], rows, "Beside this page, in the folder of the job.")
    files = best_outcome(result).artifacts
    onnx, plan, weights = (files.get(kind, f"<{kind}>") for kind in ("onnx", "plan", "weights"))
    shape = ", ".join(str(size) for size in result.input_shape)
    original = repr(Path(result.model).name) + (
        f", architecture={result.architecture!r}" if result.architecture else ""
    )
    run = f"""import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({onnx!r})
images = np.zeros((1, {shape}), np.float32)  # any batch size; prepare images as in training
scores = session.run(None, {{session.get_inputs()[0].name: images}})[0]"""
    load = f"""from pathlib import Path

from autoprune import Plan, load_network, load_pruned

network = load_network({original})  # the original model, wherever it lies
pruned = load_pruned(network, Plan.load(Path({plan!r})), Path({weights!r}))  # a torch module"""
    body = (
        f"{files_table}<h3>Run the exported network</h3><pre><code>{escape(run)}</code></pre>"
        f"<h3>Train it on in PyTorch</h3><pre><code>{escape(load)}</code></pre>"
        "<p>The plan is JSON (the channels kept of every group), the weights are safetensors: opening them runs no "
        "code.</p>"
    )
    return section("Files", body)


def latency_ms(outcome: PolicyOutcome) -> tuple[float, float] | None:
    """Return (unpruned, pruned) latency in ms from the certificate, or None if it was not measured.

    The 10th percentile: what the machine does when nothing else runs; medians of a busy machine cannot be compared.
    """
    latency = outcome.certificate.get("latency")
    if not isinstance(latency, Mapping):
        return None
    sides = [latency.get(name) for name in ("unpruned", "pruned")]
    before, after = (side.get("p10_ms") if isinstance(side, Mapping) else None for side in sides)
    if isinstance(before, int | float) and isinstance(after, int | float) and after > 0:
        return float(before), float(after)
    return None


def _latency(latency: object) -> str:
    """The measurement of the unpruned and the pruned file side by side, and what it does not say."""
    if not isinstance(latency, Mapping):
        return "<p>Latency was not measured in this job.</p>"
    names = ("unpruned", "pruned", "pruned_fp32")
    sides = {name: latency[name] for name in names if isinstance(latency.get(name), Mapping)}
    shared = {key: value for key, value in latency.items() if key not in sides}
    columns = list(dict.fromkeys(key for side in sides.values() for key in side))
    rows = [[escape(key.replace("_", " ")), *(fact(side.get(key)) for side in sides.values())] for key in columns]
    note = (
        "The files were measured in turn in onnxruntime on the machine that ran the job. It holds for that machine, "
        "its load and these settings only: measure on your own device. The ratio is that of the 10th percentiles, "
        "which other work on the machine hardly disturbs. Fewer MACs need not be faster, and below about a millisecond "
        "the fixed cost of a call outweighs the layers."
    )
    return table(["", *(escape(name) for name in sides)], rows, note) + f"<dl>{facts(shared)}</dl>"


def _policy_cells(result: JobResult, outcome: PolicyOutcome, *, tuned: bool) -> list[str]:
    """Cells of one policy's row."""
    score, timed = metric(result), latency_ms(outcome)
    cells = [_policy_name(result, outcome), percent(score.of(outcome.report))]
    cells += [percent(score.of(outcome.report_finetuned))] if tuned else []
    cells += [percent(score.of(outcome.search_pruned))]
    cells += [percent(score.of(outcome.search_finetuned))] if tuned else []
    cells += [percent(share) for share in shares(result, outcome.cost).values()]
    if latency_ms(best_outcome(result)):
        cells += [f"{timed[1]:.3g} ms" if timed else "-"]
    reused = f' <span class="dim">({outcome.cached:,} reused)</span>' if outcome.cached else ""
    cells += [f"{outcome.evaluations:,}{reused}", escape(duration(outcome.seconds))]
    return [*cells, "holds" if outcome.certificate.get("holds") is True else "missing"]


def _group_cells(result: Searched, group: GroupView) -> list[str]:
    """Cells of one group's row."""
    cells = [f"<code>{escape(group.name)}</code>", f"{group.units:,}"]
    cells += [percent(group.macs_share), percent(group.params_share)]
    for outcome in result.outcomes:
        kept = outcome.kept.get(group.name)
        cells.append("-" if kept is None else f'{kept:,} <span class="dim">({kept / group.units:.0%})</span>')
    searched = group.name in result.decision_groups
    if group.frozen is not None:
        note = f"frozen: {group.frozen}"
    elif group.residual:
        note = "residual stream" if searched else "residual stream, left whole (opt-in)"
    else:
        note = "" if searched else "left whole"
    return [*cells, f'<span class="note">{escape(note)}</span>']


def _score_cells(scores: ScoresView) -> list[str]:
    """Cells of one network's scores."""
    return [
        percent(scores.top1),
        percent(scores.top5),
        "-" if scores.loss is None else f"{scores.loss:.4f}",
        percent(scores.agreement),
        "-" if scores.kl is None else f"{scores.kl:.4f}",
        f"{scores.images:,}",
    ]


def _policy_name(result: JobResult, outcome: PolicyOutcome) -> str:
    """Name of a policy, marked if it is the best."""
    tag = '<span class="tag">best</span>' if outcome.policy == result.best and len(result.outcomes) > 1 else ""
    return escape(outcome.policy) + tag
