"""Pools in trouble: workers that die, owners that die, and what is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from autoprune.errors import Cancelled, PoolError, SearchError
from autoprune.formats.load import load_network
from autoprune.network.network import Network
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.local_pool import local_pool
from autoprune.search.policies import make_searcher
from autoprune.search.pool import ExecutorPool, SerialPool
from tests import corpus
from tests.search.pool_evaluators import CountingThreads, Deadly, SlowToArrive, Tracing
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
    return {int(path.name.split()[1]) for path in folder.iterdir() if path.is_file()}


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def workers_of(owner: int) -> set[int]:
    """Worker processes of a process."""
    command = ["pgrep", "-P", str(owner), "-f", "spawn_main"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return {pid for pid in map(int, found.stdout.split()) if alive(pid)}


def test_a_life_with_a_local_pool(tmp_path: Path) -> None:
    """One pool for several looks at it: starting workers is what takes time."""
    environment, threads = dict(os.environ), threading.active_count()
    for folder in ("deadly", "endless"):
        (tmp_path / folder).mkdir()

    def live() -> None:
        with local_pool(2, threads=2) as pool:
            assert len(workers_of(os.getpid())) == 2
            assert dict(os.environ) == environment
            evaluator_travels_once(pool)
            lost_workers_are_reported(pool)
            workers_lost_on_the_way_are_reported(pool, tmp_path / "deadly")
            endless = Tracing(PROBLEM, tmp_path / "endless", seconds=300)
            list(pool.evaluate(endless, PLANS, should_stop=lambda: interrupt(tmp_path / "endless")))

    with pytest.raises(KeyboardInterrupt):
        live()
    assert not workers_of(os.getpid())
    assert dict(os.environ) == environment
    assert wait_until(lambda: threading.active_count() <= threads + 3, 5)


def evaluator_travels_once(pool: ExecutorPool) -> None:
    evaluator = CountingThreads(PROBLEM)
    for _ in range(2):
        answers = [each.scores for each in pool.evaluate(evaluator, PLANS * 3)]
        assert {scores.top1 for scores in answers} == {2}  # threads
        assert {scores.kl for scores in answers} <= {1, 2}  # it came from here, or by way of the other worker
    assert max(scores.loss or 0 for scores in answers) > 6  # the same object answered again and again


def lost_workers_are_reported(pool: ExecutorPool) -> None:
    whole = PROBLEM.plan(PruningPolicy.uniform(0, 3))
    arriving = pool.evaluate(Deadly(PROBLEM), [PLANS[0], whole, *PLANS])
    with pytest.raises(
        PoolError, match=r"its worker process, or the engine behind it, ended .* is in the journal: run"
    ):
        list(arriving)
    evaluator = FormulaEvaluator(PROBLEM)
    assert [each.scores for each in pool.evaluate(evaluator, PLANS)] == [evaluator.evaluate(plan) for plan in PLANS]


def workers_lost_on_the_way_are_reported(pool: ExecutorPool, folder: Path) -> None:
    with pytest.raises(PoolError, match="no worker process is left"):
        list(pool.evaluate(SlowToArrive(PROBLEM, folder, seconds=-1), PLANS))


def interrupt(folder: Path) -> bool:
    """Press Ctrl-C once an evaluation runs."""
    if any(folder.iterdir()):
        raise KeyboardInterrupt
    return False


def owner(folder: Path, *arguments: object, module: str = "pool_owner") -> subprocess.Popen[bytes]:
    """Start a module of this folder in a process group of its own."""
    command = [sys.executable, "-m", f"tests.search.{module}", str(folder), *map(str, arguments)]
    environment = {**os.environ, "TMPDIR": str(folder.parent)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, process_group=0)


def test_workers_do_not_outlive_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "plans"
    folder.mkdir()
    with owner(folder, 2, 300) as process:
        assert wait_until(lambda: len(list(folder.iterdir())) == 2, 100)
        pids = workers_in(folder)
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        process.kill()
        assert wait_until(lambda: not any(alive(pid) for pid in pids), 10)
        output, errors = process.communicate(timeout=30)
    assert output == b""
    assert b"Traceback" not in errors


def test_signals_to_the_whole_group_are_for_the_owner_to_answer(tmp_path: Path) -> None:
    folder = tmp_path / "plans"
    folder.mkdir()
    with owner(folder, 2, module="pool_stops") as process:
        assert wait_until(lambda: bool(workers_in(folder)) or process.poll() is not None, 150)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does; the last phase is left by it
        output, errors = process.communicate(timeout=30)
    answers = [line.split() for line in output.decode().splitlines()]
    assert [answer[:3] for answer in answers] == [
        [kind, name, "Cancelled"] for kind in ("Tracing", "SlowToArrive") for name in ("SIGTERM", "SIGINT")
    ], errors.decode()
    assert all(float(answer[3]) < 5 for answer in answers)
    pids = {pid for phase in folder.iterdir() if phase.is_dir() for pid in workers_in(phase)} | workers_in(folder)
    assert len(pids) == 2  # no worker was lost
    assert not any(alive(pid) for pid in pids)
    assert process.returncode == -signal.SIGINT
    assert errors.startswith(b"Traceback")
    assert errors.endswith(b"\nKeyboardInterrupt\n")
    assert errors.count(b"Traceback") == 1


def test_a_start_is_interrupted_at_once(tmp_path: Path) -> None:
    with owner(tmp_path, 1, 0) as process:
        assert wait_until(lambda: bool(workers_of(process.pid)), 100)
        pids = workers_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors.count(b"Traceback")) == (-signal.SIGINT, b"", 1), errors.decode()
    assert not any(alive(pid) for pid in pids)


def test_a_pool_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "plans"
    folder.mkdir()
    with owner(folder, 1, 0) as process:
        assert (process.communicate(timeout=100), process.returncode) == ((b"", b""), 0)
    assert not any(alive(pid) for pid in workers_in(folder))
    assert list(tmp_path.iterdir()) == [folder]


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


def test_who_asked_to_stop_is_not_told_of_lost_workers() -> None:
    class Lost(Executor):
        def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
            future: Future[object] = Future()
            future.set_exception(BrokenExecutor())
            return future

    for stop, error in ((False, PoolError), (True, Cancelled)):
        with pytest.raises(error):
            next(ExecutorPool(Lost()).evaluate(FormulaEvaluator(PROBLEM), PLANS, should_stop=lambda stop=stop: stop))  # type: ignore[misc]


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
