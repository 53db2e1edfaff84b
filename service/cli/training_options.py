"""Options of commands that train, as in :mod:`options`."""

from typing import Annotated

import typer

_TUNING = "Fine-tuning (used when epochs are above 0)"

#: Panel of what says how much is pruned when.
SCHEDULE = "Schedule"

FinetuneEpochs = Annotated[
    int, typer.Option("--finetune-epochs", help="Epochs that each winner is trained; 0: none.", rich_help_panel=_TUNING)
]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the fit images.", rich_help_panel=_TUNING)]
RoundEpochs = Annotated[
    int,
    typer.Option(
        "--epochs",
        min=0,
        help="Passes over the fit images per round; 0, for weights in rounds: scores alone decide.",
        rich_help_panel=_TUNING,
    ),
]
FinalEpochs = Annotated[
    int, typer.Option(min=0, help="Passes over the fit images after the last round.", rich_help_panel=_TUNING)
]
FromScratch = Annotated[
    bool,
    typer.Option(
        "--from-scratch",
        help="Draw the weights anew, and train so: SGD at 0.1, no teacher, batch norms learn (or as options say).",
        rich_help_panel=_TUNING,
    ),
]
Optimizer = Annotated[str, typer.Option(help="sgd (Nesterov), adamw or relative-adamw.", rich_help_panel=_TUNING)]
LearningRate = Annotated[float, typer.Option(help="At the start; falls along a cosine.", rich_help_panel=_TUNING)]
WeightDecay = Annotated[float, typer.Option(help="Not on batch norm and biases.", rich_help_panel=_TUNING)]
Momentum = Annotated[float, typer.Option(help="Of SGD.", rich_help_panel=_TUNING)]
BatchSize = Annotated[int, typer.Option(help="Images per step.", rich_help_panel=_TUNING)]
LabelSmoothing = Annotated[
    float, typer.Option(help="Share of the target spread over all classes.", rich_help_panel=_TUNING)
]
Distillation = Annotated[
    float, typer.Option(help="Weight of the unpruned network's answers, 0 to 1.", rich_help_panel=_TUNING)
]
Temperature = Annotated[float, typer.Option(help="Of the distillation.", rich_help_panel=_TUNING)]
Hints = Annotated[
    float,
    typer.Option(
        help="Weight of the distance to the unpruned network at the ends of residual blocks.", rich_help_panel=_TUNING
    ),
]
FreezeBatchnorm = Annotated[
    bool, typer.Option(help="Keep the statistics of batch norms while training.", rich_help_panel=_TUNING)
]
Augment = Annotated[bool, typer.Option(help="Random crops of images of at least 16 pixels.", rich_help_panel=_TUNING)]
Flip = Annotated[bool, typer.Option(help="Mirror at random; not where left and right matter.", rich_help_panel=_TUNING)]

Kept = Annotated[
    float,
    typer.Option(
        help="Share of the weights (or channels) that stays, e.g. 0.2.", rich_help_panel=SCHEDULE, metavar="SHARE"
    ),
]
Unit = Annotated[
    str, typer.Option(help="What goes: weights, or whole channels that can be pruned.", rich_help_panel=SCHEDULE)
]
PruneCriterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        help="Whose lowest scores go, of `autoprune criteria`; by default magnitude: l1 for weights, l2 for channels.",
        rich_help_panel=SCHEDULE,
    ),
]
Schedule = Annotated[
    str,
    typer.Option(
        help="Weights: exponential or linear (rounds of pruning and training), or gradual (in one training). Channels "
        "go in even steps.",
        rich_help_panel=SCHEDULE,
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="How often some go; 1: all at once.", rich_help_panel=SCHEDULE)]
Scope = Annotated[
    str,
    typer.Option(
        help="Weights compete with all others (global), every layer keeps the same share (layer), or so many of every "
        "M in a row stay (N:M, e.g. 2:4 with --kept 0.5 --rounds 1).",
        rich_help_panel=SCHEDULE,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Stop removing channels once the loss on search images has risen by so many nats. (default: never)",
        rich_help_panel=SCHEDULE,
    ),
]
