"""Short-term training: a pure function of plan and path, whatever became of the checkpoints."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoprune.datasets.splits import SearchSplits
from autoprune.errors import PlanError, SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.pruning.plan import Plan
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from tests.search.small_problems import real_splits, small_problem

PROBLEM = small_problem()
SPLITS = real_splits()
EVALUATOR = Evaluator(PROBLEM, SPLITS)
SETTINGS = FinetuneSettings(
    optimizer="sgd",
    learning_rate=0.05,
    warmup_epochs=0,
    batch_size=16,
    distillation=0.5,
    hints=0,
    freeze_batchnorm=False,
)


def plan(*kept: int) -> Plan:
    return PROBLEM.plan(PROBLEM.policy(kept))


WHOLE, FIRST, SECOND, THIRD = plan(16, 24, 32), plan(12, 24, 32), plan(12, 20, 32), plan(12, 20, 20)
PATH = PathPlan.of(THIRD, [FIRST, SECOND])


def tuned(
    folder: Path, *, splits: SearchSplits = SPLITS, steps: int = 3, settings: FinetuneSettings = SETTINGS
) -> TunedEvaluator:
    evaluator = EVALUATOR if splits is SPLITS else Evaluator(PROBLEM, splits)
    return TunedEvaluator(evaluator, splits, steps=steps, checkpoints=folder, settings=settings)


def weights(evaluator: TunedEvaluator, chosen: Plan) -> dict[str, torch.Tensor]:
    return dict(evaluator.candidate(chosen).state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_scores_depend_on_plan_and_path_alone(tmp_path: Path) -> None:
    asked = [WHOLE, FIRST, PathPlan.of(SECOND, [FIRST]), PATH, PathPlan.of(THIRD, [SECOND]), THIRD]
    first, second = tuned(tmp_path / "first"), tuned(tmp_path / "second")
    scores = [first.evaluate(each) for each in asked]
    assert [second.evaluate(each) for each in reversed(asked)] == scores[::-1]
    assert [first.evaluate(each) for each in asked] == scores
    assert len({each.loss for each in scores}) == len(asked)
    assert pickle.loads(pickle.dumps(first)).evaluate(PATH) == scores[3]  # noqa: S301 - made here
    assert first.evaluate(PATH, images=10) == EVALUATOR.score(first.candidate(PATH), images=10)


def test_the_global_random_state_plays_no_part(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = tuned(tmp_path / "first").evaluate(PATH)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert tuned(tmp_path / "second").evaluate(PATH) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_every_setting_is_in_the_key(tmp_path: Path) -> None:
    keys = {
        EVALUATOR.settings_key,
        tuned(tmp_path).settings_key,
        tuned(tmp_path, steps=4).settings_key,
        tuned(tmp_path, settings=replace(SETTINGS, seed=1)).settings_key,
        TunedEvaluator(
            EVALUATOR, SPLITS, steps=3, checkpoints=tmp_path, settings=SETTINGS, precision="bf16"
        ).settings_key,
    }
    assert len(keys) == 5
    with pytest.raises(SearchError, match="at least 1 step, found 0"):
        tuned(tmp_path, steps=0)


def test_training_that_changes_nothing_leaves_the_reconstruction(tmp_path: Path) -> None:
    still = tuned(tmp_path, settings=replace(SETTINGS, learning_rate=1e-30))
    for name, tensor in EVALUATOR.candidate(THIRD).state_dict().items():
        torch.testing.assert_close(weights(still, PATH)[name], tensor, atol=1e-20, rtol=0)
    assert still.evaluate(PATH) == EVALUATOR.evaluate(THIRD)


def test_what_was_learned_is_carried_on(tmp_path: Path) -> None:
    """A second training that hardly moves leaves the weights of the first, cut, and made up for what was cut."""
    moving = tuned(tmp_path)
    trained = moving.candidate(FIRST).get_submodule("conv2").weight
    untrained = EVALUATOR.candidate(FIRST).get_submodule("conv2").weight
    assert isinstance(trained, torch.Tensor)
    assert isinstance(untrained, torch.Tensor)
    learned = (trained - untrained).detach()
    narrow = plan(12, 24, 30)
    kept = list(narrow.kept[PROBLEM.names[2]])
    before = EVALUATOR.candidate(narrow).get_submodule("conv2").weight
    after = moving._changed(narrow, moving._before([FIRST, narrow]) or {}).get_submodule("conv2").weight
    assert isinstance(before, torch.Tensor)
    assert isinstance(after, torch.Tensor)
    assert float(learned.abs().max()) > 1e-3
    torch.testing.assert_close((after - before).detach(), learned[kept], atol=1e-6, rtol=1e-4)


def test_channels_that_come_back_start_from_their_reconstruction(tmp_path: Path) -> None:
    moving = tuned(tmp_path)
    start = moving._changed(WHOLE, moving._before([FIRST, WHOLE]) or {}).get_submodule("conv0").weight
    trained = PROBLEM.network.module.get_submodule("conv0").weight
    assert isinstance(start, torch.Tensor)
    assert isinstance(trained, torch.Tensor)
    gone = [unit for unit in range(16) if unit not in FIRST.kept[PROBLEM.names[0]]]
    stays = list(FIRST.kept[PROBLEM.names[0]])
    assert torch.equal(start[gone], trained[gone])
    assert not torch.equal(start[stays], trained[stays])


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def poisoned(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [Path.unlink, truncated, poisoned])
@pytest.mark.parametrize("which", ["first", "last", "all"])
def test_lost_and_damaged_checkpoints_are_computed_again(
    tmp_path: Path, harm: Callable[[Path], None], which: str
) -> None:
    expected = tuned(tmp_path).evaluate(PATH)
    files = sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert len(files) == 3
    for file in {"first": files[:1], "last": files[-1:], "all": files}[which]:
        harm(file)
    assert tuned(tmp_path).evaluate(PATH) == expected


def test_a_folder_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    evaluator = tuned(tmp_path / "gone")
    expected = evaluator.evaluate(PATH)
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "gone").write_text("a file in its place")
    assert tuned(tmp_path / "new").evaluate(PATH) == expected
    assert evaluator.evaluate(PATH) == expected


def test_checkpoints_of_what_was_not_taken_are_removed(tmp_path: Path) -> None:
    evaluator = tuned(tmp_path)
    for each in (FIRST, WHOLE, THIRD, PathPlan.of(SECOND, [FIRST]), PathPlan.of(THIRD, [FIRST])):
        evaluator.evaluate(each)
    assert len(list(tmp_path.iterdir())) == 3  # the first of the path, and two that compete to be the second
    evaluator.evaluate(PATH)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_path_is_not_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(tmp_path).evaluate(PathPlan.of(SECOND, [FIRST]))
    trained: list[Plan] = []
    original = TunedEvaluator._train
    monkeypatch.setattr(TunedEvaluator, "_train", lambda self, path: trained.append(path[-1]) or original(self, path))
    evaluator = tuned(tmp_path)
    evaluator.evaluate(PATH)
    evaluator.evaluate(PATH)
    assert [each.kept for each in trained] == [THIRD.kept]


def test_training_sees_the_fit_split_and_scoring_the_search_split(tmp_path: Path) -> None:
    plain = weights(tuned(tmp_path / "plain"), PATH)
    assert SPLITS.fit.labels is not None
    assert SPLITS.search.labels is not None
    search = replace(SPLITS.search, inputs=-SPLITS.search.inputs, labels=4 - SPLITS.search.labels, sha256="0" * 64)
    other_search = tuned(tmp_path / "search", splits=SearchSplits(SPLITS.fit, search))
    assert same(weights(other_search, PATH), plain)
    fit = replace(SPLITS.fit, labels=4 - SPLITS.fit.labels, sha256="0" * 64)
    other_fit = tuned(tmp_path / "fit", splits=SearchSplits(fit, SPLITS.search))
    assert not same(weights(other_fit, PATH), plain)
    assert other_fit.evaluate(PATH) == EVALUATOR.score(other_fit.candidate(PATH))
    assert other_fit.evaluate(PATH).images == len(SPLITS.search)


def test_without_labels_the_unpruned_network_teaches(tmp_path: Path) -> None:
    splits = SearchSplits(replace(SPLITS.fit, labels=None), replace(SPLITS.search, labels=None))
    scores = tuned(tmp_path, splits=splits).evaluate(PATH)
    assert scores.top1 is None
    assert scores.agreement is not None


def test_plans_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError):
        tuned(tmp_path).evaluate(PathPlan.of(FIRST, [Plan({"nowhere": (0,)}, "")]))
