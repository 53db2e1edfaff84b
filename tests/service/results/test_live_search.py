"""What a job's searches found so far, read while they run."""

from pathlib import Path

from autoprune.service.results.live_search import LIVE, read_live
from tests.service.live_samples import head_line, trial_line


def test_nothing_is_known_before_the_searches(tmp_path: Path) -> None:
    assert read_live(tmp_path) is None
    (tmp_path / LIVE).write_text(head_line()[:-1])  # half written
    assert read_live(tmp_path) is None


def test_best_so_far_is_no_probe(tmp_path: Path) -> None:
    lines = [trial_line(1, 0.99, probe=True), trial_line(2, 0.5), trial_line(3, 0.7), trial_line(4, 0.7)]
    (tmp_path / LIVE).write_text(head_line() + "".join(lines) + '{"policy": "exa')
    live = read_live(tmp_path)
    assert live is not None
    (found,) = live.outcomes
    assert [each.number for each in found.trials] == [1, 2, 3, 4]
    assert found.best is not None
    assert found.best.number == 3
    assert found.kept == {"block1.conv1": 3, "block2.conv1": 8, "block3.conv1": 9}


def test_searches_of_several_seeds_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / LIVE).write_text(head_line() + trial_line(1, 0.5, policy="uniform"))
    for seed in (0, 10, 2):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / LIVE).write_text(trial_line(1, 0.6))
    live = read_live(tmp_path)
    assert live is not None
    assert [found.policy for found in live.outcomes] == ["uniform", "exact, seed 0", "exact, seed 2", "exact, seed 10"]
