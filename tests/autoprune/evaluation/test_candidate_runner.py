"""Starting from what the last candidate computed gives the same bits as computing everything, for less work."""

import pickle
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from autoprune.costs.budget import Budget
from autoprune.errors import DatasetError, NumericalError, SearchError
from autoprune.evaluation.candidate_runner import MEMORY_BYTES, CandidateRunner
from autoprune.evaluation.metrics import predict
from autoprune.evaluation.recalibration import recalibrate
from autoprune.evaluation.segments import choose_cuts, segments
from autoprune.network.tracer import trace
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.gram import collect_grams
from autoprune.reconstruction.reconstructor import Reconstructor
from tests.corpus import NETWORKS, input_shape
from tests.oracles import random_plan

#: Chains, shortcuts, a depthwise chain, concatenations, constants, attention (its values fold tokens into the batch).
NAMES = ("vgg", "resnet_padded", "mobilenet_v1", "densenet", "unet", "vit_token")

#: One batch to score on and the beginning of another.
SEARCH_IMAGES = 260


def _images(name: str, n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *input_shape(name), generator=torch.Generator().manual_seed(seed))


def _problem(name: str, *, with_statistics: bool = False) -> PruningProblem:
    network = trace(NETWORKS[name](), input_shape(name))
    problem = pruning_problem(network, Budget.parse("params=95%"))
    if not with_statistics:
        return problem
    statistics = collect_grams(network, problem.groups, _images(name, 32), points=16)
    return pruning_problem(network, Budget.parse("params=95%"), statistics=statistics)


def _runner(problem: PruningProblem, name: str, *, memory_bytes: int = MEMORY_BYTES) -> CandidateRunner:
    search = _images(name, SEARCH_IMAGES, 2)
    return CandidateRunner(problem, _images(name, 12, 1), search, memory_bytes=memory_bytes, precision="fp32")


def _candidate(problem: PruningProblem, plan: Plan) -> fx.GraphModule:
    module = prune(problem.network, problem.all_groups, plan)
    if problem.statistics is not None:
        Reconstructor(problem.network, problem.all_groups, problem.statistics).apply(module, plan)
    return module


def _from_scratch(problem: PruningProblem, name: str, plan: Plan, images: int | None) -> Tensor:
    """The whole network, by its generated code."""
    module = _candidate(problem, plan)
    recalibrate(module, _images(name, 12, 1))
    return predict(module, _images(name, SEARCH_IMAGES, 2)[:images])


def _alone(problem: PruningProblem, group: int, count: int) -> Plan:
    """Narrow one group, as a scan does."""
    chosen = problem.groups[group]
    return Plan({chosen.name: tuple(range(count))}, problem.model_sha256)


def _sequence(problem: PruningProblem) -> list[Plan]:
    """Random plans, a scan and two steps of it back, steps from a random plan, repeats."""
    groups = range(0, len(problem.groups), -(-len(problem.groups) // 4))
    scan = [_alone(problem, group, max(1, len(problem.groups[group]) // 2)) for group in groups]
    start, last = random_plan(problem.groups, 3), random_plan(problem.groups, 4)
    steps = [Plan({**start.kept, **step.kept}, "") for step in scan[1:]]
    return [*scan, *scan[-3::-1], Plan({}, ""), start, *steps, last, last]


@pytest.mark.parametrize(("name", "with_statistics"), [*((name, False) for name in NAMES), ("mobilenet_v1", True)])
def test_any_sequence_of_candidates_gives_the_bits_of_runs_from_scratch(name: str, with_statistics: bool) -> None:
    problem = _problem(name, with_statistics=with_statistics)
    runner = _runner(problem, name)
    for number, plan in enumerate(_sequence(problem)):
        images = (None, 20, None, 255)[number % 4]
        logits = runner.logits(_candidate(problem, plan), plan, images)
        assert torch.equal(logits, _from_scratch(problem, name, plan, images)), number


def _counted(problem: PruningProblem, plan: Plan) -> tuple[fx.GraphModule, list[str]]:
    """A candidate, and the list in which it notes the layers it runs."""
    module, calls = _candidate(problem, plan), []
    for name in problem.network.layers():
        module.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    return module, calls


def _layers_run(runner: CandidateRunner, problem: PruningProblem, plan: Plan) -> list[str]:
    """Run a candidate and return the layers it ran, a name for every batch."""
    module, calls = _counted(problem, plan)
    runner.logits(module, plan)
    return calls


def test_what_is_shared_is_not_run_again() -> None:
    problem = _problem("resnet_padded")
    runner = _runner(problem, "resnet_padded")
    layers = list(problem.network.layers())
    last = len(problem.groups) - 1
    assert set(_layers_run(runner, problem, _alone(problem, last, 7))) == set(layers)
    assert _layers_run(runner, problem, _alone(problem, last, 7)) == []
    step = _layers_run(runner, problem, _alone(problem, last, 6))
    behind = layers[layers.index("layer3.1.conv1") :]
    before_head = behind[: behind.index("linear")]
    assert set(step) == set(behind)
    assert step.count("layer3.1.conv1") == 3  # one batch of the fit split, two of the search split
    assert set(_layers_run(runner, problem, _alone(problem, 0, 6))) > set(before_head)


def test_a_cheap_score_is_not_paid_for_again_in_the_full_one() -> None:
    problem = _problem("vgg")
    runner, plan = _runner(problem, "vgg"), random_plan(problem.groups, 1)
    module, calls = _counted(problem, plan)
    runner.logits(module, plan, 250)
    assert len(calls) > len(problem.network.layers())
    calls.clear()
    assert torch.equal(runner.logits(_candidate(problem, plan), plan), _from_scratch(problem, "vgg", plan, None))
    assert calls == list(problem.network.layers())  # the second batch


@pytest.mark.parametrize("share", [0, 0.5])
def test_memory_stays_within_the_bound(share: float) -> None:
    problem = _problem("resnet_padded")
    free = _runner(problem, "resnet_padded")
    free.logits(_candidate(problem, Plan({}, "")), Plan({}, ""))
    bound = int(share * free.remembered_bytes)
    runner = _runner(problem, "resnet_padded", memory_bytes=bound)
    taken = []
    for plan in _sequence(problem)[:6]:
        logits = runner.logits(_candidate(problem, plan), plan)
        assert torch.equal(logits, free.logits(_candidate(problem, plan), plan))
        taken.append(runner.remembered_bytes)
    assert max(taken) <= bound
    assert max(taken) >= 0.5 * bound


def test_what_is_remembered_is_not_pickled() -> None:
    problem = _problem("vgg")
    runner, plan = _runner(problem, "vgg"), random_plan(problem.groups, 1)
    fresh = len(pickle.dumps(runner))
    expected = runner.logits(_candidate(problem, plan), plan)
    assert runner.remembered_bytes > 0
    assert len(pickle.dumps(runner)) == fresh
    sent = pickle.loads(pickle.dumps(runner))  # noqa: S301 - our own
    assert sent.remembered_bytes == 0
    assert torch.equal(sent.logits(_candidate(problem, plan), plan), expected)


def test_a_candidate_that_fails_leaves_nothing_wrong_behind() -> None:
    problem = _problem("vgg")
    runner, plan = _runner(problem, "vgg"), random_plan(problem.groups, 1)
    broken = _candidate(problem, plan)
    last = [layer for layer in broken.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight[0] = float("nan")
    with pytest.raises(NumericalError, match="not finite"):
        runner.logits(broken, plan)
    sound = random_plan(problem.groups, 2)
    assert torch.equal(runner.logits(_candidate(problem, sound), sound), _from_scratch(problem, "vgg", sound, None))


def test_bounds_and_images_that_make_no_sense() -> None:
    problem = _problem("vgg")
    with pytest.raises(SearchError, match=r"at least 0 bytes.*found -1"):
        _runner(problem, "vgg", memory_bytes=-1)
    runner = CandidateRunner(problem, _images("vgg", 1), _images("vgg", 3), memory_bytes=0, precision="fp32")
    with pytest.raises(DatasetError, match="at least 2 images"):
        runner.logits(_candidate(problem, Plan({}, "")), Plan({}, ""))


@pytest.mark.parametrize("name", NETWORKS)
def test_segments_are_the_whole_network_in_order(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    problem = pruning_problem(network, Budget.parse("params=99%"))
    parts = segments(problem, 1, 2**40)
    assert [step.layer for part in parts for step in part.steps] == list(network.layers())
    x = images = _images(name, 3)
    with torch.no_grad():
        for part in parts:
            x = part.of(network.module)(x)
        assert torch.equal(x, network.module(images))


_CUTS = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 9), min_size=n, max_size=n),
        st.lists(st.integers(0, n), min_size=1, max_size=5),
        st.lists(st.none() | st.integers(1, 9), min_size=n, max_size=n),
        st.integers(0, 30),
    )
)


@given(_CUTS)
def test_no_other_cuts_within_the_bound_save_more(case: tuple[list[int], list[int], list[int | None], int]) -> None:
    layers, starts, possible, bound = case
    work = [sum(layers[: i + 1]) for i in range(len(layers))]
    sizes = {i: size for i, size in enumerate(possible) if size is not None}

    def saved(cuts: tuple[int, ...]) -> int:
        return sum(max((work[cut] for cut in cuts if cut < start), default=0) for start in starts)

    chosen = choose_cuts(work, starts, sizes, bound)
    every = [cuts for n in range(len(sizes) + 1) for cuts in combinations(sizes, n)]
    assert list(chosen) == sorted(chosen)
    assert sum(sizes[cut] for cut in chosen) <= bound
    assert saved(chosen) == max(saved(cuts) for cuts in every if sum(sizes[cut] for cut in cuts) <= bound)
