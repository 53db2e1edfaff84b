"""How the stages of a job are called."""

from autoprune.service.specs.progress import Progress

STAGES = {
    "queued": "queued",
    "train": "train",
    "load": "load images",
    "pruningnet": "train PruningNet",
    "audit": "audit PruningNet",
    "cluster": "cluster",
    "search": "search",
    "study": "study",
    "finetune": "fine-tune",
    "export": "export",
    "measure": "measure latency",
    "report": "score on report images",
    "done": "done",
}


def stage_name(progress: Progress) -> str:
    """Name the stage that a job is in, and who is at work."""
    name = STAGES.get(progress.stage, progress.stage)
    policy = f", {progress.policy}" if progress.policy else ""
    return f"{name}{policy}" if progress.seed is None else f"{name}{policy}, seed {progress.seed}"
