"""Pools in trouble: workers that die, owners that die, and what is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from autoprune.errors import PoolError, SearchError
from autoprune.formats.load import load_network
from autoprune.network.network import Network
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.local_pool import local_pool
from autoprune.search.policies import make_searcher
from autoprune.search.pool import ExecutorPool, SerialPool
from tests import corpus
from tests.search.pool_evaluators import CountingThreads, Deadly, Tracing
from tests.search.small_problems import FormulaEvaluator, real_evaluator, small_problem

ROOT = Path(__file__).parents[2]
PROBLEM = small_problem()
PLANS = [PROBLEM.plan(PruningPolicy.uniform(ratio, 3)) for ratio in (0.2, 0.4, 0.6, 0.8)]


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return what()


def workers_in(folder: Path) -> set[int]:
    return {int(path.name.split()[1]) for path in folder.iterdir()}


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False)  # noqa: S607
    return {int(line) for line in found.stdout.split()}


def own_workers() -> set[int]:
    """Worker processes of this one."""
    return {
        pid for pid in children() if alive(pid) and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }  # fmt: skip


def test_a_life_with_a_local_pool(tmp_path: Path) -> None:
    """One pool for several looks at it: starting workers is what takes time."""
    environment, threads = dict(os.environ), threading.active_count()
    evaluator = CountingThreads(PROBLEM)
    with local_pool(2, threads=2) as pool:
        assert len(own_workers()) == 2
        assert dict(os.environ) == environment
        for _ in range(2):
            answers = list(pool.evaluate(evaluator, PLANS * 3))
            assert {scores.top1 for scores in answers} == {2}  # threads
            assert {scores.agreement for scores in answers} == {None}
            assert {scores.kl for scores in answers} <= {1, 2}  # it travelled here, or by way of the other worker
        assert max(scores.loss or 0 for scores in answers) > 6  # the same object answered again and again
        arriving = pool.evaluate(Deadly(PROBLEM), [PLANS[0], PROBLEM.plan(PruningPolicy.uniform(0, 3)), *PLANS])
        with pytest.raises(PoolError, match=r"its worker process, or the engine behind it, ended .* is in the"):
            list(arriving)
        again = FormulaEvaluator(PROBLEM)
        assert list(pool.evaluate(again, PLANS)) == [again.evaluate(plan) for plan in PLANS]
        arriving = pool.evaluate(Tracing(PROBLEM, tmp_path, seconds=0.5), PLANS)
        next(arriving)
        for pid in own_workers():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(PoolError, match="run the search again to go on"):
            list(arriving)
    assert not own_workers()
    assert wait_until(lambda: threading.active_count() <= threads + 3, 5)


def test_errors_end_workers_in_mid_evaluation(tmp_path: Path) -> None:

    def evaluate() -> None:
        with local_pool(1) as pool:
            evaluator = Tracing(PROBLEM, tmp_path, seconds=300)
            list(pool.evaluate(evaluator, PLANS, should_stop=lambda: _interrupt(tmp_path)))

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert not own_workers()
    assert time.monotonic() - started < 200


def _interrupt(folder: Path) -> bool:
    """Press Ctrl-C once an evaluation runs."""
    if any(folder.iterdir()):
        raise KeyboardInterrupt
    return False


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_owner(tmp_path: Path, kill: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.search.pool_owner", str(tmp_path), "120"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as owner:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 100)
        pids = workers_in(tmp_path)
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        if kill == signal.SIGINT:
            os.killpg(owner.pid, kill)  # as a terminal does
        else:
            owner.send_signal(kill)
        assert wait_until(lambda: not any(alive(pid) for pid in pids), 10)
        output, errors = owner.communicate(timeout=30)
    assert owner.returncode == -kill
    assert output == b""
    assert errors.count(b"Traceback") == (kill == signal.SIGINT)


def test_a_pool_is_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.search.pool_owner", str(tmp_path), "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any(alive(pid) for pid in workers_in(tmp_path))


def test_a_lost_worker_costs_nothing_that_was_recorded() -> None:
    class Dying(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
            nonlocal left
            left -= 1
            future: Future[object] = super().submit(fn, *args, **kwargs)
            if left < 0:
                future.result()
                future = Future()
                future.set_exception(CancelledError())
            return future

    left = 9
    evaluator = FormulaEvaluator(PROBLEM)
    with Journal("sqlite://") as journal, Dying(1) as executor:

        def search() -> int:
            searcher = make_searcher("random", PROBLEM, seed=0, evaluations=20)
            pool = ExecutorPool(executor)
            return run_search(
                PROBLEM, evaluator, searcher, evaluations=20, journal=journal, batch=4, pool=pool
            ).evaluated

        with pytest.raises(PoolError):
            search()
        assert len(journal) == 9
        left = 100
        assert search() == 11


def test_impossible_pools_are_refused() -> None:
    for make in (lambda: SerialPool(threads=0), lambda: ExecutorPool(ThreadPoolExecutor(1), threads=-1)):
        with pytest.raises(SearchError, match="at least 1 thread"):
            make()
    with pytest.raises(SearchError, match="at least 1 worker, found 0"), local_pool(0):
        pass
    with pytest.raises(SearchError, match="at least 1 thread, found 0"), local_pool(1, threads=0):
        pass


def test_dask_is_imported_by_those_who_use_it() -> None:
    code = "import sys, autoprune.search.driver, autoprune.search.local_pool; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"dask", "distributed"} & set(done.stdout.split())


def signature(network: Network) -> list[tuple[str, str, str, str]]:
    return [(node.op, node.name, str(node.target), str(node.args)) for node in network.module.graph.nodes]


@pytest.mark.parametrize("name", sorted(corpus.NETWORKS))
def test_networks_survive_the_way_to_a_worker(name: str) -> None:
    network = load_network(corpus.exported(name, "dynamo"))
    arrived: Network = pickle.loads(pickle.dumps(network))  # noqa: S301 - just pickled
    assert signature(arrived) == signature(network)
    assert arrived.fingerprint() == network.fingerprint()
    assert (arrived.shapes, arrived.input_shape) == (network.shapes, network.input_shape)
    with torch.inference_mode():
        assert torch.equal(arrived.module(corpus.images(name)), network.module(corpus.images(name)))


def test_evaluators_survive_the_way_to_a_worker() -> None:
    evaluator = real_evaluator(PROBLEM)
    arrived = pickle.loads(pickle.dumps(evaluator))  # noqa: S301 - just pickled
    assert arrived.settings_key == evaluator.settings_key
    assert [arrived.evaluate(plan) for plan in PLANS] == [evaluator.evaluate(plan) for plan in PLANS]
