"""Options of single policies, as in :mod:`options`."""

from pathlib import Path
from typing import Annotated

import typer

_AMC = "Reinforcement learning (used with --policy amc)"
_PRUNINGNET = "Predicted weights (used with --policy metapruning)"

AmcReward = Annotated[
    str | None,
    typer.Option(help="What is raised: -error, -error*log(macs) or -error*log(params).", rich_help_panel=_AMC),
]
AmcWarmupEpisodes = Annotated[
    int | None,
    typer.Option(
        help="Episodes with uniform actions first. (default: as in the original)",
        rich_help_panel=_AMC,
    ),
]
AmcParallelEpisodes = Annotated[
    int | None,
    typer.Option(help="Episodes that --workers may evaluate at a time; 1: as in the original.", rich_help_panel=_AMC),
]
AmcFill = Annotated[
    bool | None,
    typer.Option("--amc-fill/--no-amc-fill", help="Widen what an episode leaves of the budget.", rich_help_panel=_AMC),
]
AmcFreeEpisodes = Annotated[
    int | None,
    typer.Option(
        help="Episodes in a row that end where one ended before, learned from at no cost.", rich_help_panel=_AMC
    ),
]
AmcStopEarly = Annotated[
    bool | None,
    typer.Option(
        "--amc-stop-early/--no-amc-stop-early",
        help="End when the rest is expected to gain less than the noise of a score.",
        rich_help_panel=_AMC,
    ),
]
AmcExperience = Annotated[
    bool,
    typer.Option("--amc-experience", help="Learn first from the policies named before amc.", rich_help_panel=_AMC),
]
AmcAgent = Annotated[
    Path | None,
    typer.Option(help="Go on with the agent.safetensors of an earlier search.", rich_help_panel=_AMC, metavar="FILE"),
]
AgentOfJob = Annotated[
    str | None,
    typer.Option(
        "--amc-agent", help="Go on with the agent that an earlier job left.", rich_help_panel=_AMC, metavar="JOB_ID"
    ),
]
AmcTensorboard = Annotated[
    bool, typer.Option("--amc-tensorboard", help="Log to OUTPUT/amc/tensorboard.", rich_help_panel=_AMC)
]

PruningnetEpochs = Annotated[
    int | None, typer.Option(help="Epochs that the PruningNet is trained.", rich_help_panel=_PRUNINGNET)
]
PruningnetImages = Annotated[
    int | None, typer.Option(help="Fit images it is trained on. (default: all)", rich_help_panel=_PRUNINGNET)
]
PruningnetFromScratch = Annotated[
    bool,
    typer.Option(
        "--pruningnet-from-scratch",
        help="Predict whole weights, as in the paper, instead of corrections to the trained ones.",
        rich_help_panel=_PRUNINGNET,
    ),
]
PruningnetAuditPlans = Annotated[
    int | None,
    typer.Option(
        help="Random plans that are fine-tuned to see whether it ranks them alike; 0: none.",
        rich_help_panel=_PRUNINGNET,
    ),
]
