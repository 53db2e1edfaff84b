"""Studies of the reference networks: the tables in results/study-*.md.

    python benchmarks/studies.py ../shared schedule
    python benchmarks/studies.py ../shared sensitivity

One shot against iterative pruning of ResNet-20, and sensitivity curves of the convolutions of VGG-11. All images are
test images, so that nothing is scored on what the networks were trained on. Goes on where it was stopped.
"""

import argparse
from pathlib import Path

from _bench import RESNET20, VGG11, note, table
from _log import log_progress

from autoprune.service.specs.study_spec import ScheduleOptions, SensitivityOptions, StudySpec
from autoprune.service.studies.run import run_study
from autoprune.service.studies.study_result import TABLE, StudyResult
from autoprune.service.studies.words import final_rows, quality_at, verdict


def main() -> None:
    """Run one study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with models/ and data/")
    parser.add_argument("study", choices=("schedule", "sensitivity"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recoveries", nargs="+", default=["none"], help="after a cut of study sensitivity")
    parser.add_argument("--images", type=int, help="that networks are scored on")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-studies"))
    arguments = parser.parse_args()
    name = RESNET20 if arguments.study == "schedule" else VGG11
    spec = StudySpec(
        study=arguments.study,
        model=str(arguments.shared / "models" / f"{name}.onnx"),
        dataset=str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
        fit_images=2560,
        search_images=arguments.images or (1000 if arguments.study == "schedule" else 300),
        schedule=ScheduleOptions(kept=0.4, rounds=4, epochs=4, flip=True, repeats=arguments.seeds),
        sensitivity=SensitivityOptions(recoveries=tuple(arguments.recoveries)),
    )
    result = run_study(spec, arguments.output / f"{arguments.study}-{name}", progress=log_progress)
    results = Path(__file__).parent / "results"
    page = _schedule_page(result, name) if arguments.study == "schedule" else _curves_page(result, name)
    (results / f"study-{arguments.study}-{name}.md").write_text(page, encoding="utf-8")
    csv = (arguments.output / f"{arguments.study}-{name}" / TABLE).read_text(encoding="utf-8")
    (results / f"study-{arguments.study}-{name}.csv").write_text(csv, encoding="utf-8")
    print(page)  # noqa: T201 - a script's result


def _schedule_page(result: StudyResult, name: str) -> str:
    """Return the table of both schedules as Markdown."""
    options = ScheduleOptions.model_validate(result.settings)
    head, rows = final_rows(result)
    seeds = sorted({run.seed for run in result.runs})
    every = [
        (run.schedule, run.seed, *(f"{macs:.0%}: {after:.1%}" for macs, after in zip(run.macs, run.after, strict=True)))
        for run in result.runs
    ]
    width = max(len(row) for row in every)
    cuts = table(
        ("schedule", "seed", *(f"cut {n}" for n in range(1, width - 1))),
        [(*row, *["-"] * (width - len(row))) for row in every],
    )
    return (
        f"# One shot against iterative pruning: {name}\n\n{table(head, rows)}{note(verdict(result)[0])}\n{cuts}"
        + note(
            f"Accuracy on {result.search_images:,} test images ({result.quality:.1%} unpruned), means over "
            f"{len(seeds)} seeds; below, MACs left and accuracy after every cut and its training. Channels go by "
            f"{options.criterion} in one ranking of all groups, measured on 256 of {result.fit_images:,} other test "
            f"images, which also serve for {options.epochs} epochs of training in all, with the unpruned network as "
            "teacher. Iterative: half of the training after the last cut, the rest dealt to the cuts before."
        )
    )


def _curves_page(result: StudyResult, name: str) -> str:
    """Return the curves as Markdown."""
    shares = [step / 10 for step in range(10)]
    rows = [
        (curve.group, curve.channels, curve.recovery, *(quality_at(curve, share, 0.05) for share in shares))
        for curve in result.curves
    ]
    return (
        f"# Sensitivity of the layers: {name}\n\n"
        + table(("group", "channels", "after the cut", *(f"{share:.0%}" for share in shares)), rows)
        + note(
            f"Accuracy on {result.search_images:,} test images, by the share of a layer's channels removed, each layer "
            "alone, lowest L1 first; nothing is trained. None: as cut, as in Li et al. 2017 (1608.08710). "
            f"Reconstruction, if any: the layers behind solved anew on {result.fit_images:,} other test images, and "
            f"batch norms recalibrated. {verdict(result)[0]}"
        )
    )


if __name__ == "__main__":
    main()
