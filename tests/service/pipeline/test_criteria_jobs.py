"""Jobs whose channels go by a criterion: one of every family, whole, on digits; and those that cannot work."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from autoprune.criteria.catalog import criterion_names
from autoprune.criteria.channels import ranking, score_units
from autoprune.criteria.data import criterion_data
from autoprune.datasets.splits import Splits
from autoprune.errors import CriterionError
from autoprune.network.network import Network
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.service.cli.app import app
from autoprune.service.cli.demo_network import train_demo_network
from autoprune.service.pipeline.inputs import load_inputs
from autoprune.service.pipeline.run import run_job
from autoprune.service.specs.job_spec import read_spec
from tests.corpus import export
from tests.service.live_service import images_npz

SMALL = {"dataset": "digits", "budget": "macs=50%", "fit_images": 200, "search_images": 100, "report_images": 100}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trained network as a file that still has its batch norms."""
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    network, module, _ = train_demo_network(epochs=2)
    assert isinstance(network, Network)
    export(module.cpu().eval(), (1, 8, 8), path, "torchscript", keep_norm=True)
    return path


def expected_kept(
    problem: PruningProblem, splits: Splits, criterion: str, kept: tuple[int, ...]
) -> dict[str, list[int]]:
    """Return the units that a plan must keep."""
    scores = score_units(problem.network, problem.all_groups, criterion, criterion_data(splits.fit, seed=5))
    pairs = zip(problem.groups, kept, strict=True)
    return {group.name: sorted(ranking(group, scores)[:count]) for group, count in pairs}


@pytest.mark.parametrize("criterion", ["fpgm", "bn-gamma", "group-taylor", "synflow", "apoz"])
@pytest.mark.parametrize("reconstruction", [False, True])
def test_a_job_keeps_the_channels_with_the_best_scores_of_fit_images(
    criterion: str, reconstruction: bool, model: Path, tmp_path: Path
) -> None:
    settings = {"policies": ["uniform"], "evaluations": 1, "refit": False, "reconstruction": reconstruction, "seed": 5}
    spec = read_spec({**SMALL, **settings, "model": str(model), "criterion": criterion})
    result = run_job(spec, tmp_path)
    (outcome,) = result.outcomes
    assert outcome.cost["macs"] <= result.limits["macs"]
    plan = Plan.load(tmp_path / outcome.artifacts["plan"])
    inputs = load_inputs(spec, lambda _: None)
    found = {name: list(kept) for name, kept in plan.kept.items()}
    counts = tuple(len(found[name]) for name in inputs.problem.names)
    assert found == expected_kept(inputs.problem, inputs.splits, criterion, counts)


@pytest.mark.parametrize("criterion", ["obs", "l2", "taylor"])
def test_policy_global_is_one_candidate_within_budget(criterion: str, model: Path, tmp_path: Path) -> None:
    settings = {"policies": ["uniform", "global"], "evaluations": 5, "refit": False, "seed": 5}
    result = run_job(read_spec({**SMALL, **settings, "model": str(model), "criterion": criterion}), tmp_path)
    uniform, ranked = result.outcomes
    assert (ranked.policy, ranked.evaluations) == ("global", 1)
    assert ranked.cost["macs"] <= result.limits["macs"]
    assert ranked.kept != uniform.kept


def test_every_criterion_makes_a_problem_of_its_own(model: Path) -> None:
    orders = {}
    for criterion in criterion_names("channel"):
        spec = read_spec({**SMALL, "model": str(model), "criterion": criterion})
        inputs = load_inputs(spec, lambda _: None)
        assert inputs.problem.criterion == criterion
        assert inputs.problem.errors is not None
        for order, group in zip(inputs.problem.order, inputs.problem.groups, strict=True):
            assert np.array_equal(np.sort(order), np.arange(len(group)))
        orders[criterion] = inputs.problem.order
    same = {"l2", "lamp"}  # within a group the one is a rising function of the other
    assert orders["l2"] == orders["lamp"]
    assert len({order for name, order in orders.items() if name not in same}) == len(orders) - len(same)


def test_images_without_labels_are_refused_before_anything_is_measured(model: Path, tmp_path: Path) -> None:
    images = np.load(_saved(tmp_path / "labelled.npz"))["images"]
    np.savez(tmp_path / "images.npz", images=images)
    values = {"model": str(model), "dataset": str(tmp_path / "images.npz"), "budget": "macs=50%"}
    with pytest.raises(CriterionError, match="'snip' needs labels, the images have none; give images in one folder"):
        load_inputs(read_spec({**values, "criterion": "snip"}), lambda _: None)
    assert load_inputs(read_spec({**values, "criterion": "apoz"}), lambda _: None).problem.criterion == "apoz"


def test_the_command_line_takes_criteria_by_name(model: Path, tmp_path: Path) -> None:
    words = ["search", str(model), "--data", "digits", "--budget", "macs=50%", "--policy", "uniform", "--json"]
    few = [
        "--fit-images",
        "200",
        "--search-images",
        "100",
        "--report-images",
        "100",
        "--no-refit",
        "--evaluations",
        "1",
    ]
    done = CliRunner().invoke(app, [*words, *few, "--criterion", "grasp", "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outcomes"][0]["policy"] == "uniform"
    wrong = CliRunner().invoke(app, [*words, *few, "--criterion", "grsp", "--output", str(tmp_path / "other")])
    assert wrong.exit_code == 2
    assert "Did you mean 'grasp'?" in wrong.output


def _saved(path: Path) -> Path:
    path.write_bytes(images_npz(60))
    return path
