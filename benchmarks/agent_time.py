"""What the agent of AMC costs beside its evaluations, and how long a long search takes: results/agent-time.md.

    python benchmarks/agent_time.py ../shared

Needs the CIFAR-10 zips and the reference networks, and a quiet machine; about fifteen minutes on two cores.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from _bench import RESNET20, RESNET56, Bench

from autoprune.datasets.load import load_dataset
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.search.amc.searcher import Amc
from autoprune.search.amc.settings import AmcSettings
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal

RESULTS = Path(__file__).parent / "results" / "agent-time.md"


class Timed:
    """An evaluator that adds up the seconds it takes."""

    follows_path = False

    def __init__(self, evaluator: PlanEvaluator) -> None:
        self._evaluator = evaluator
        self.problem: PruningProblem = evaluator.problem
        self.settings_key, self.search_images = evaluator.settings_key, evaluator.search_images
        self.seconds = 0.0

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        """Return the scores of `plan`."""
        started = time.perf_counter()
        scores = self._evaluator.evaluate(plan, images=images)
        self.seconds += time.perf_counter() - started
        return scores


def main() -> None:
    """Measure both networks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--images", type=int, default=1000, help="search images")
    parser.add_argument("--episodes", type=int, nargs=2, default=[400, 40], help="of ResNet-20 and of ResNet-56")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = arguments.shared / "data"
    train, test = (load_dataset(data / f"cifar10_jpeg_{part}.zip") for part in ("train", "test"))
    bench = Bench(arguments.shared / "models", train, test, arguments.images, 1, 1, (), (), 0)
    lines = [
        "# The agent of AMC beside its evaluations",
        "",
        f"One process, one thread, {arguments.images:,} search images, settings as by default but for a warm-up of a "
        "quarter of the episodes; the agent's share is of all time, in walking and learning, over the whole search.",
        "",
        "| network | episodes | search (s) | of an episode (s) | agent's share |",
        "|---|---|---|---|---|",
    ]
    for name, episodes in zip((RESNET20, RESNET56), arguments.episodes, strict=True):
        evaluator = Timed(bench.candidates(name, arguments.images).evaluator)
        seconds = _search(evaluator, episodes).seconds
        share = 1 - evaluator.seconds / seconds
        lines.append(f"| {name} | {episodes} | {seconds:.0f} | {seconds / episodes:.2f} | {share:.1%} |")
    lines += ["", f"Load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _search(evaluator: Timed, episodes: int) -> SearchResult:
    """Search with AMC, the journal in memory."""
    amc = Amc(evaluator.problem, 0, episodes, AmcSettings(warmup_episodes=episodes // 4))
    with Journal("sqlite://") as journal:
        return run_search(evaluator.problem, evaluator, amc, evaluations=episodes, journal=journal)


if __name__ == "__main__":
    main()
