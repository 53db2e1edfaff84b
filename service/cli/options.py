"""Options of the commands: one annotated type each, grouped into panels; names are those of :class:`JobSpec`."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from autoprune.errors import AutopruneError
from autoprune.service.settings import MOST_WORKERS, Settings


class CommandError(AutopruneError):
    """A command was given something it cannot use."""


_MODEL, _DATA, _SEARCH = "Model", "Images", "Budget and search"
_AMC = "Reinforcement learning (used with --policy amc)"
_PRUNINGNET = "Predicted weights (used with --policy metapruning)"
_SCHEDULE = "Schedule"
_TUNING, _OUTPUT = "Fine-tuning (used when epochs are above 0)", "Output"
_SERVICE = "Service"

JobsAtOnce = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        max=MOST_WORKERS,
        help="Jobs to run at a time; 0: only accept them. Without it $AUTOPRUNE_WORKERS, or 1.",
    ),
]

Model = Annotated[
    str,
    typer.Argument(help="ONNX file, safetensors file (with --arch), or name of a zoo architecture.", metavar="MODEL"),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Safetensors file with the weights of the zoo architecture MODEL.", rich_help_panel=_MODEL),
]
Architecture = Annotated[
    str | None,
    typer.Option(
        "--arch", help="Zoo architecture of a safetensors MODEL, e.g. resnet56_cifar.", rich_help_panel=_MODEL
    ),
]
NumClasses = Annotated[int | None, typer.Option(help="Classes of the zoo architecture.", rich_help_panel=_MODEL)]
InputShape = Annotated[
    str | None,
    typer.Option(
        help="One image of the zoo architecture: channels,height,width.", rich_help_panel=_MODEL, metavar="C,H,W"
    ),
]

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="'digits' (built in), a folder or zip of images, or an npz.",
        rich_help_panel=_DATA,
        metavar="DATA",
    ),
]
OptionalData = Annotated[
    str | None,
    typer.Option("--data", help="Images for --int8: as --data of search.", rich_help_panel=_DATA, metavar="DATA"),
]
ReportData = Annotated[
    str | None,
    typer.Option("--report-data", help="Images for the final figures alone, e.g. a test set.", rich_help_panel=_DATA),
]
FitImages = Annotated[
    int | None, typer.Option(help="Images for statistics and fine-tuning. (default: 70%)", rich_help_panel=_DATA)
]
SearchImages = Annotated[
    int | None,
    typer.Option(help="Images that candidates are scored on. (default: 15%, at most 2000)", rich_help_panel=_DATA),
]
ReportImages = Annotated[
    int | None, typer.Option(help="Images for the final figures. (default: 15%)", rich_help_panel=_DATA)
]
Normalization = Annotated[
    str | None,
    typer.Option(
        help="imagenet, digits, none, or means/stds such as 0.5,0.5,0.5/0.2,0.2,0.2. (default: what fits the data)",
        rich_help_panel=_DATA,
    ),
]

Budget = Annotated[
    str,
    typer.Option(
        help="Hard limits, e.g. macs=50% or latency=12ms,params=100k. Quantities: macs, params, bytes, latency.",
        rich_help_panel=_SEARCH,
    ),
]
Budgets = Annotated[
    list[str],
    typer.Option(
        "--budget", help="As in search, e.g. macs=40%; repeat for a curve.", metavar="BUDGET", show_default=False
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Device (or latency table file) that a budget of latency speaks of; see autoprune device.",
        rich_help_panel=_SEARCH,
    ),
]
OptionalBudget = Annotated[
    str | None,
    typer.Option(
        help="Also say whether this budget can be reached, e.g. macs=50%,params=100k.", rich_help_panel=_SEARCH
    ),
]
Policies = Annotated[
    list[str],
    typer.Option("--policy", help="Who proposes what to prune; repeat to compare several.", rich_help_panel=_SEARCH),
]
Evaluations = Annotated[int, typer.Option(help="Candidates that each policy may try.", rich_help_panel=_SEARCH)]
WarmStart = Annotated[
    bool,
    typer.Option(
        "--warm-start",
        help="Let policies that are no baselines try the exact allocation first.",
        rich_help_panel=_SEARCH,
    ),
]
ContinueFrom = Annotated[
    str | None,
    typer.Option(
        help="Folder of an earlier search with the same model, images and seed: its evaluations are not made again.",
        rich_help_panel=_SEARCH,
        metavar="FOLDER",
    ),
]
FrontLeast = Annotated[
    str | None,
    typer.Option(
        "--front",
        help="Let nsga2 look for a Pareto front from here up to the budget, e.g. macs=30%, and export its plans.",
        rich_help_panel=_SEARCH,
        metavar="LOWER_END",
    ),
]
FrontPoints = Annotated[
    int | None, typer.Option(help="Most plans of the front that are exported. (default: 12)", rich_help_panel=_SEARCH)
]
ScreeningImages = Annotated[
    int | None,
    typer.Option(
        help="Score proposals on so many search images first, the best quarter on all. (default: all on all)",
        rich_help_panel=_SEARCH,
    ),
]
ShortTermSteps = Annotated[
    int,
    typer.Option(
        help="Training steps that netadapt gives every proposal before it is scored; 0: none.", rich_help_panel=_SEARCH
    ),
]
NetadaptRule = Annotated[
    str,
    typer.Option(
        help="What netadapt takes: the least accuracy lost per resource saved (official), or the highest accuracy "
        "(paper).",
        rich_help_panel=_SEARCH,
    ),
]
Criterion = Annotated[
    str,
    typer.Option(
        help="How channels of a group are ranked: obs (by the error they leave), or another of `autoprune criteria`.",
        rich_help_panel=_SEARCH,
    ),
]
Reconstruction = Annotated[
    bool,
    typer.Option(help="Solve the layers behind pruned groups for the best weights.", rich_help_panel=_SEARCH),
]
Refit = Annotated[
    bool, typer.Option(help="Solve all layers of each winner once more, in order.", rich_help_panel=_SEARCH)
]
RoundTo = Annotated[
    int, typer.Option(help="Keep multiples of this many channels (8 is often faster).", rich_help_panel=_SEARCH)
]
MaxRatio = Annotated[
    float, typer.Option(help="Largest fraction of a group that may be removed.", rich_help_panel=_SEARCH)
]
IncludeResidual = Annotated[
    bool, typer.Option("--include-residual", help="Also prune residual streams.", rich_help_panel=_SEARCH)
]
Seed = Annotated[int, typer.Option(help="Equal seeds, equal results.", rich_help_panel=_SEARCH)]
Seeds = Annotated[
    int, typer.Option(help="How often each policy searches, with the seeds 0, 1, ...", rich_help_panel=_SEARCH)
]
DealingSeed = Annotated[
    int, typer.Option(help="Of all but the searches: deals images, fine-tunes.", rich_help_panel=_SEARCH)
]
Precision = Annotated[
    str, typer.Option(help="Of evaluations and fine-tuning: auto, fp32 or bf16.", rich_help_panel=_SEARCH)
]

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

FinetuneEpochs = Annotated[
    int, typer.Option("--finetune-epochs", help="Epochs that each winner is trained; 0: none.", rich_help_panel=_TUNING)
]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the fit images.", rich_help_panel=_TUNING)]
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

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder for the results. (default: runs/MODEL-BUDGET)", rich_help_panel=_OUTPUT
    ),
]
Opset = Annotated[int, typer.Option(help="Operator set of the ONNX files, 13 to 20.", rich_help_panel=_OUTPUT)]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Also export int8, calibrated on fit images; a budget of latency then speaks of the int8 files.",
        rich_help_panel=_OUTPUT,
    ),
]
ExportInt8 = Annotated[
    bool, typer.Option("--int8", help="Also write OUTPUT's int8 file beside it; needs --data.", rich_help_panel=_OUTPUT)
]
Threads = Annotated[int, typer.Option(help="CPU threads.", rich_help_panel=_OUTPUT)]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that evaluate candidates; the results are the same. (default: one per core for long searches)",
        rich_help_panel=_OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.", rich_help_panel=_OUTPUT)]

Kept = Annotated[
    float,
    typer.Option(
        help="Share of the weights (or channels) that stays, e.g. 0.2.", rich_help_panel=_SCHEDULE, metavar="SHARE"
    ),
]
Unit = Annotated[
    str, typer.Option(help="What goes: weights, or whole channels that can be pruned.", rich_help_panel=_SCHEDULE)
]
PruneCriterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        help="Whose lowest scores go, of `autoprune criteria`; by default magnitude: l1 for weights, l2 for channels.",
        rich_help_panel=_SCHEDULE,
    ),
]
Schedule = Annotated[
    str,
    typer.Option(
        help="Weights: exponential or linear (rounds of pruning and training), or gradual (in one training). Channels "
        "go in even steps.",
        rich_help_panel=_SCHEDULE,
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="How often some go; 1: all at once.", rich_help_panel=_SCHEDULE)]
Scope = Annotated[
    str,
    typer.Option(
        help="Weights compete with all others (global), or every layer keeps the same share (layer).",
        rich_help_panel=_SCHEDULE,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Stop removing channels once the loss on search images has risen by so many nats. (default: never)",
        rich_help_panel=_SCHEDULE,
    ),
]
RoundEpochs = Annotated[
    int, typer.Option("--epochs", min=1, help="Passes over the fit images per round.", rich_help_panel=_TUNING)
]

Plan = Annotated[
    Path, typer.Option(help="The plan (JSON) that a search left.", rich_help_panel="Pruned network", metavar="FILE")
]
PrunedWeights = Annotated[
    Path | None,
    typer.Option(
        help="The weights (safetensors) that a search left; without them the original's are cut.",
        rich_help_panel="Pruned network",
        metavar="FILE",
    ),
]
OutputFile = Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write.", rich_help_panel=_OUTPUT)]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.", rich_help_panel=_OUTPUT)]

Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the service. (default: $AUTOPRUNE_URL, or the one of autoprune serve here)",
        rich_help_panel=_SERVICE,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Also watch the job until its end.", rich_help_panel=_SERVICE)]
JobId = Annotated[str, typer.Argument(help="Id of a job or comparison: job_..., cmp_...", metavar="JOB_ID")]
ContinueFromJob = Annotated[
    str | None,
    typer.Option(
        "--continue-from",
        help="Earlier job with the same model, images and seed: its evaluations are not made again.",
        rich_help_panel=_SEARCH,
        metavar="JOB_ID",
    ),
]
AgentOfJob = Annotated[
    str | None,
    typer.Option(
        "--amc-agent", help="Go on with the agent that an earlier job left.", rich_help_panel=_AMC, metavar="JOB_ID"
    ),
]

#: Options that become fields of FinetuneOptions.
FINETUNE_FIELDS = (
    "optimizer", "learning_rate", "weight_decay", "momentum", "batch_size", "label_smoothing", "distillation",
    "temperature", "hints", "freeze_batchnorm", "augment", "flip",
)  # fmt: skip
#: Options that become fields of AmcOptions, FrontOptions and PruningNetOptions, there without this; those left out
#: (None) have the defaults of these.
PREFIXES = ("amc_", "front_", "pruningnet_")
_NOT_IN_SPEC = ("weights", "output", "as_json", "url", "wait")


_Command = TypeVar("_Command", bound=Callable[..., None])


def options_of(
    command: Callable[..., None], *, without: tuple[str, ...] = (), **more: tuple[object, object]
) -> Callable[[_Command], _Command]:
    """Give a command the options of another one but those in `without`; and `more`, or others, by name.

    Of these, `more` says what each is, and its default.
    """

    def decorate(function: _Command) -> _Command:
        parameters = inspect.signature(command).parameters
        options = {name: parameter for name, parameter in parameters.items() if name not in without}
        for name, (annotation, default) in more.items():
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            options[name] = inspect.Parameter(name, kind, annotation=annotation, default=default)
        described: Any = function
        described.__signature__ = inspect.Signature(list(options.values()))  # what typer reads
        return function

    return decorate


def spec_values(params: Mapping[str, object]) -> dict[str, object]:
    """Turn a command's parameters into the settings of a :class:`JobSpec`.

    Raises:
        CommandError: Parameters that contradict each other, or an input shape that is none.

    """
    others = (*_NOT_IN_SPEC, *FINETUNE_FIELDS)
    values = {name: value for name, value in params.items() if name not in others and not name.startswith(PREFIXES)}
    weights, model = params.get("weights"), params["model"]
    if weights is not None:
        if params.get("architecture") is not None or Path(str(model)).suffix:
            raise CommandError(
                f"--weights belongs to the name of a zoo architecture, found MODEL {str(model)!r}; "
                "write either NAME --weights FILE or FILE --arch NAME"
            )
        values |= {"model": str(weights), "architecture": model}
    values["input_shape"] = parse_input_shape(params.get("input_shape"))
    tuning = {name: params[name] for name in FINETUNE_FIELDS if name in params}
    if tuning:
        values["finetune"] = tuning
    for prefix in PREFIXES:
        own = {
            name.removeprefix(prefix): str(value) if isinstance(value, Path) else value
            for name, value in params.items()
            if name.startswith(prefix) and value is not None
        }
        if own:
            values[prefix.removesuffix("_")] = own
    return values


def parse_input_shape(text: object) -> tuple[int, ...] | None:
    """Read ``3,32,32`` or ``3x32x32``; None stays None.

    Raises:
        CommandError: Not whole numbers.

    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in str(text).lower().replace("x", ",").split(","))
    except ValueError:
        raise CommandError(f"--input-shape: expected channels,height,width as in 3,32,32; found {text!r}") from None


def settings_with(workers: int | None) -> Settings:
    """Return the settings of the environment, with another number of jobs at a time if one is given.

    Raises:
        SettingsError: A variable of the environment holds something unusable.

    """
    settings = Settings.from_environment()
    return settings if workers is None else settings.with_workers(workers)
