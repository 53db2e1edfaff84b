"""Files in a job's folder that later jobs and questions go back to, or the job itself. Needs no torch."""

import shutil
from pathlib import Path

#: Every evaluation ever made.
JOURNAL = "journal.sqlite"

#: What the searches found out, :class:`autoprune.search.evidence.Evidence`.
EVIDENCE = "evidence.safetensors"

#: The searches of Optuna's samplers, for Optuna's own tools; written anew whenever the job runs.
STUDIES = "studies.sqlite"

#: Every figure that a study has measured, one a line behind the first; hidden from the artifacts.
NOTEBOOK = ".measured.jsonl"

#: Where trainings and refits stand, for the job to go on with.
CHECKPOINTS = "checkpoints"


def forget_checkpoints(folder: Path) -> None:
    """Remove what only a job that goes on has a use for, from its folder and those of its seeds."""
    for each in (folder, *folder.glob("seed-*")):
        shutil.rmtree(each / CHECKPOINTS, ignore_errors=True)
