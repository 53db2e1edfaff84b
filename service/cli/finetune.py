"""The command ``finetune``: train a pruned network further and export it again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from torch import fx

from autoprune.artifact import load_pruned
from autoprune.datasets.splits import Split
from autoprune.evaluation.evaluator import Evaluator
from autoprune.files import write_whole
from autoprune.formats.weights import save_weights
from autoprune.network.network import network_of
from autoprune.pruning.plan import Plan
from autoprune.recovery.checkpoint import Checkpoint
from autoprune.service.cli.console import stderr, stdout, stop_on_interrupt
from autoprune.service.cli.export import Exported, export_checked, show_exported, unpruned_cost
from autoprune.service.cli.inspect import load_model
from autoprune.service.cli.output_folder import FINETUNED, alone_in, forget_results
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.pipeline.inputs import Inputs, load_inputs
from autoprune.service.pipeline.job import PARITY_IMAGES
from autoprune.service.pipeline.outcome import view
from autoprune.service.pipeline.recovery import Scorer, finetuned
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results import wording
from autoprune.service.results.job_result import ScoresView
from autoprune.service.specs.job_spec import read_spec

#: A problem that any plan fits into, and that nothing is searched in.
_ANY_PLAN = {"include_residual": True, "max_ratio": 0.999999, "policies": ["uniform"], "criterion": "l1"}

#: Where a training stands in the output folder; gone when the command is done.
_CHECKPOINT = ".finetune.safetensors"


@dataclass(frozen=True, slots=True)
class Retrained:
    """Scores of the original, of the pruned network as it came, and of the trained one, on both splits."""

    search: dict[str, ScoresView]
    report: dict[str, ScoresView]
    exported: Exported


def run_finetune(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, training that diverges, or an interruption (:class:`Cancelled`).

    """
    own = {"plan", "pruned_weights", "output", "as_json"}
    values = spec_values({name: value for name, value in params.items() if name not in own})
    network = load_model(values)
    plan = Plan.load(Path(str(params["plan"])))
    weights = None if params["pruned_weights"] is None else Path(str(params["pruned_weights"]))
    given = load_pruned(network, plan, weights)
    cost = unpruned_cost(network_of(given, network.input_shape))
    budget = f"macs={cost['macs']},params={cost['params']}"  # what the plan costs: training must not change it
    spec = read_spec({**values, **_ANY_PLAN, "budget": budget, "reconstruction": weights is None})
    folder = Path(str(params["output"]))
    console, checkpoint = stderr(), Checkpoint(folder / _CHECKPOINT)
    with alone_in(folder):
        with stop_on_interrupt(console) as should_stop, ProgressBars(console) as bars:
            inputs = load_inputs(spec, bars)
            before = given if weights is not None else _cut(inputs, plan)
            teacher = inputs.problem.network.module
            after = finetuned(
                before,
                teacher,
                inputs.splits,
                spec,
                precision=inputs.precision,
                policy=None,
                checkpoint=checkpoint,
                report=bars,
                should_stop=should_stop,
            )
        forget_results(folder, FINETUNED)
        images = inputs.splits.search.inputs[:PARITY_IMAGES]
        exported = export_checked(after, network, folder / "model.onnx", images, opset=spec.opset)
        save_weights(after, folder / "weights.safetensors")
        plan.save(folder / "plan.json")
        retrained = _score(inputs, before, after, exported)
        text = json.dumps(_to_dict(retrained), indent=1)
        write_whole(folder / FINETUNED, text.encode())
        checkpoint.remove()
    if params["as_json"]:
        typer.echo(text)
    else:
        show_scores(stdout(), retrained.search, retrained.report)
        show_exported(stdout(), exported)


def _cut(inputs: Inputs, plan: Plan) -> fx.GraphModule:
    """Return what `plan` leaves of the original, as a search would score it."""
    return Evaluator(inputs.problem, inputs.splits.for_search(), precision=inputs.precision).candidate(plan)


def _score(inputs: Inputs, before: fx.GraphModule, after: fx.GraphModule, exported: Exported) -> Retrained:
    """Score all three networks; the report split is opened here, after everything is decided."""
    networks = {"unpruned": inputs.problem.network.module, "pruned": before, "fine-tuned": after}

    def on(split: Split) -> dict[str, ScoresView]:
        score = Scorer(split, inputs.problem.network.module)
        return {name: view(score(module)) for name, module in networks.items()}

    return Retrained(on(inputs.splits.search), on(inputs.splits.report), exported)


def _to_dict(retrained: Retrained) -> dict[str, object]:
    """Return JSON-ready data."""
    return {
        "format": "autoprune-finetune/1",
        "search": {name: scores.model_dump() for name, scores in retrained.search.items()},
        "report": {name: scores.model_dump() for name, scores in retrained.report.items()},
        "exported": asdict(retrained.exported),
    }


def show_scores(console: Console, search: Mapping[str, ScoresView], report: Mapping[str, ScoresView]) -> None:
    """Print how good networks are on both splits, by name; the first is the unpruned one."""
    unlabelled = search["unpruned"].top1 is None
    measure = wording.AGREEMENT if unlabelled else wording.TOP1
    table = Table(title=measure.label, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("network")
    for split in ("search", "report"):
        table.add_column(f"{split} images", justify="right")
    for name, scores in search.items():
        figures = (measure.of(scores), measure.of(report[name]))
        table.add_row(name, *(wording.percent(value) for value in figures))
    console.print(table)
