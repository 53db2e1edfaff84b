"""Options of the commands: one annotated type each, grouped into panels; names are those of :class:`JobSpec`."""

from pathlib import Path
from typing import Annotated

import typer

_MODEL, _DATA, _SEARCH, _OUTPUT = "Model", "Images", "Budget and search", "Output"
_PRUNED = "Pruned network"

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

Plan = Annotated[
    Path, typer.Option(help="The plan (JSON) that a search left.", rich_help_panel=_PRUNED, metavar="FILE")
]
PrunedWeights = Annotated[
    Path | None,
    typer.Option(
        help="The weights (safetensors) that a search left; without them the original's are cut.",
        rich_help_panel=_PRUNED,
        metavar="FILE",
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
ContinueFromJob = Annotated[
    str | None,
    typer.Option(
        "--continue-from",
        help="Earlier job with the same model, images and seed: its evaluations are not made again.",
        rich_help_panel=_SEARCH,
        metavar="JOB_ID",
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
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Dask scheduler whose workers evaluate candidates instead, tcp://host:port or tls://host:port. "
        "(default: $AUTOPRUNE_CLUSTER)",
        rich_help_panel=_OUTPUT,
        metavar="URL",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.", rich_help_panel=_OUTPUT)]

OutputFile = Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write.", rich_help_panel=_OUTPUT)]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.", rich_help_panel=_OUTPUT)]
