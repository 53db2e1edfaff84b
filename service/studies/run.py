"""One study, from model file to report. One that was killed is run again in the same folder and goes on."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.criteria.catalog import OBS, criterion_names
from autoprune.criteria.channels import comparable_units
from autoprune.criteria.members import Scores
from autoprune.errors import Cancelled, CriterionError, NumericalError
from autoprune.evaluation.metrics import score
from autoprune.files import write_whole
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network
from autoprune.reconstruction.orders import ranked_groups
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.service.pipeline.job_files import NOTEBOOK
from autoprune.service.results.job_result import REPORT
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.studies.inputs import StudyInputs, load_study_inputs
from autoprune.service.studies.report import write_report
from autoprune.service.studies.study_result import (
    FILE,
    TABLE,
    CorrelationView,
    CriterionView,
    CurveView,
    OracleView,
    RunView,
    StudyResult,
)
from autoprune.service.studies.table import csv_text
from autoprune.studies.curves import sensitivity_curves
from autoprune.studies.notebook import Notebook
from autoprune.studies.oracle import leave_one_out
from autoprune.studies.rank_correlation import RankCorrelation, agreement
from autoprune.studies.schedules import Cut, ScheduleSettings, run_schedule

#: Raised whenever the same settings would give other figures: what older versions measured is then not used.
VERSION = 1

#: Options that figures depend on; the others say which figures are wanted.
_DECIDING = {
    "sensitivity": {"criterion"},
    "oracle": {"images"},
    "schedule": {"criterion", "kept", "rounds", "epochs", "learning_rate", "flip"},
}


@dataclass(frozen=True, slots=True)
class _Task:
    """One study on its way."""

    spec: StudySpec
    inputs: StudyInputs
    notebook: Notebook
    tell: Callable[[int, int, str], None]


def run_study(
    spec: StudySpec,
    directory: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    timer: object = None,
) -> StudyResult:
    """Run one whole study and leave its document, table and report in `directory`.

    ``study.json`` is removed first and written last. Every figure is noted as soon as it is measured: a study that was
    stopped, run again with the same arguments in the same folder, measures only what is missing, to the same result.

    Args:
        spec: What to do.
        directory: Folder of the artifacts; made if it is missing.
        progress: Told how far the study is.
        should_stop: Asked after every figure whether to stop.
        timer: As jobs have it; nothing is timed here.

    Raises:
        AutopruneError: Bad input, or a study that does not fit it.
        Cancelled: `should_stop` said so.

    """
    started = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    for name in (FILE, TABLE, REPORT):
        (directory / name).unlink(missing_ok=True)
    inputs = load_study_inputs(spec, progress)

    def tell(done: int, total: int, text: str) -> None:
        if should_stop():
            raise Cancelled("stopped; what was measured is kept")
        progress(Progress(stage="study", done=done, total=total, message=text, policy=None))

    task = _Task(spec, inputs, Notebook(directory / NOTEBOOK, _facts(spec, inputs)), tell)
    result = _result(task, _STUDIES[spec.study](task), started)
    write_report(result, directory / REPORT)
    write_whole(directory / TABLE, csv_text(result).encode())
    write_whole(directory / FILE, result.model_dump_json(indent=1).encode())
    progress(Progress(stage="done", done=1, total=1, message="finished", policy=None))
    return result


def _facts(spec: StudySpec, inputs: StudyInputs) -> dict[str, object]:
    """Return all that the figures of a study depend on besides their keys."""
    options = getattr(spec, spec.study).model_dump(mode="json", include=_DECIDING[spec.study])
    return {
        "version": VERSION,
        "torch": torch.__version__,
        "network": inputs.network.fingerprint(),
        "fit": inputs.splits.fit.sha256,
        "search": inputs.splits.search.sha256,
        "study": {spec.study: options, "seed": spec.seed, "include_residual": spec.include_residual},
        "threads": spec.threads,  # sums are split among them
    }


def _sensitivity(task: _Task) -> dict[str, Any]:
    """Take sensitivity curves."""
    options, inputs = task.spec.sensitivity, task.inputs
    by_obs = options.criterion == OBS
    statistics = inputs.statistics(task.spec.seed) if by_obs or "reconstruction" in options.recoveries else None
    ranking = statistics if by_obs else None  # errors of every width would take long, and nobody looks at them
    ranked = ranked_groups(inputs.network, inputs.groups, inputs.chosen, options.criterion, ranking, inputs.data)
    curves = sensitivity_curves(
        inputs.network,
        inputs.groups,
        {group.name: each.order for group, each in zip(inputs.chosen, ranked, strict=True)},
        inputs.splits.for_search(),
        steps=options.steps,
        recoveries=options.recoveries,
        statistics=statistics,
        notebook=task.notebook,
        progress=task.tell,
    )
    views = []
    for group in inputs.chosen:
        for recovery in options.recoveries:
            points = curves.of(group.name, recovery)
            columns = {
                name: [getattr(point, name) for point in points] for name in ("removed", "kept", "quality", "loss")
            }
            views.append(CurveView(group=group.name, channels=len(group), recovery=recovery, **columns))
    return {"curves": views}


def _oracle(task: _Task) -> dict[str, Any]:
    """Leave channels out one at a time, and rank them by every criterion."""
    options, inputs, fit = task.spec.oracle, task.inputs, task.inputs.splits.fit
    assert fit.labels is not None, "checked"
    images, labels = fit.inputs[: options.images], fit.labels[: options.images]
    oracle = leave_one_out(
        inputs.network, inputs.groups, inputs.chosen, images, labels,
        channels=options.channels, seed=task.spec.seed, notebook=task.notebook, progress=task.tell,
    )  # fmt: skip
    views, left_out = [], {}
    names = options.criteria or criterion_names("channel")
    for done, name in enumerate(names):
        task.tell(done, len(names), f"criteria, {name}")
        try:
            scores = _scores(task, name)
        except (CriterionError, NumericalError) as error:
            if options.criteria is not None:
                raise
            left_out[name] = str(error)
            continue
        found = agreement(oracle, scores)
        groups = {group: _correlation(each) for group, each in found.layers.items()}
        views.append(
            CriterionView(
                criterion=name,
                together=_correlation(found.together),
                normalised=_correlation(found.normalised),
                groups=groups,
            )
        )
    view = OracleView(
        images=len(images),
        loss=oracle.loss,
        channels={name: list(channels) for name, channels in oracle.channels.items()},
        changes={name: changes.tolist() for name, changes in oracle.changes.items()},
        criteria=sorted(views, key=lambda each: -(each.together.spearman or 0.0)),
        left_out=left_out,
    )
    return {"oracle": view}


def _scores(task: _Task, criterion: str) -> dict[str, NDArray[np.float64]]:
    """Return what a criterion says of all channels of the chosen groups, by group, in channel order."""
    inputs = task.inputs
    statistics = inputs.statistics(task.spec.seed) if criterion == OBS else None
    ranked = ranked_groups(inputs.network, inputs.groups, inputs.chosen, criterion, statistics, inputs.data)
    scores = {}
    for group, each in zip(inputs.chosen, ranked, strict=True):
        scores[group.name] = np.empty(len(group))
        scores[group.name][list(each.order)] = each.scores
    return scores


def _correlation(found: RankCorrelation) -> CorrelationView:
    """Show a correlation."""
    return CorrelationView(spearman=found.spearman, kendall=found.kendall, channels=found.channels)


def _schedule(task: _Task) -> dict[str, Any]:
    """Run both schedules with every seed."""
    options, fit, search = task.spec.schedule, task.inputs.splits.fit, task.inputs.splits.search
    assert fit.labels is not None, "checked"
    assert search.labels is not None, "checked"

    def criterion(network: Network, groups: ChannelGroups) -> Scores:
        chosen = groups.prunable(include_residual=task.spec.include_residual)
        return comparable_units(  # checked at the start; nothing may pass through some group any longer
            network, groups, options.criterion, task.inputs.data, chosen=chosen, checked=False
        )

    training = FinetuneSettings(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        freeze_batchnorm=False,
        flip=options.flip,
        seed=task.spec.seed,
    )
    images, judge = (fit.inputs, fit.labels), (search.inputs, search.labels)
    views = []
    for seed in range(options.repeats):
        for name, rounds in _schedules(options.rounds):
            settings = ScheduleSettings(
                replace(training, seed=training.seed + 1000 * seed), options.kept, rounds, task.spec.include_residual
            )

            def run(settings: ScheduleSettings = settings, what: str = f"{name}, seed {seed}") -> list[float]:
                cuts = run_schedule(
                    task.inputs.network, images, judge, settings, criterion,
                    progress=lambda done, total, text: task.tell(done, total, f"{text}, {what}"),
                )  # fmt: skip
                return [figure for cut in cuts for figure in (cut.macs, cut.channels, cut.before, cut.after)]

            figures = np.reshape(task.notebook.get([name, seed], run), (-1, 4)).tolist()
            cuts = [Cut(macs, int(channels), before, after) for macs, channels, before, after in figures]
            columns = {each: [getattr(cut, each) for cut in cuts] for each in ("macs", "channels", "before", "after")}
            views.append(RunView(schedule=name, seed=seed, **columns))
    return {"runs": views}


def _schedules(rounds: int) -> tuple[tuple[Literal["one shot", "iterative"], int], ...]:
    """Return both schedules and how often each cuts."""
    return ("one shot", 1), ("iterative", rounds)


def _result(task: _Task, found: Mapping[str, Any], started: float) -> StudyResult:
    """Put a study together."""
    spec, inputs, search = task.spec, task.inputs, task.inputs.splits.search
    quality = 1.0
    if search.labels is not None:
        quality = score(inputs.network.module, search.inputs, search.labels).objective
    return StudyResult(
        study=spec.study,
        model=spec.model,
        model_sha256=inputs.sha256,
        dataset=spec.dataset,
        settings=getattr(spec, spec.study).model_dump(mode="json"),
        seed=spec.seed,
        labels=search.labels is not None,
        fit_images=len(inputs.splits.fit),
        search_images=len(search),
        quality=quality,
        seconds=time.monotonic() - started,
        **found,
    )


_STUDIES: Mapping[str, Callable[[_Task], dict[str, Any]]] = {
    "sensitivity": _sensitivity,
    "oracle": _oracle,
    "schedule": _schedule,
}
