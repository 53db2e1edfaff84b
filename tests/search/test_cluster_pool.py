"""A cluster in trouble: workers and schedulers killed in mid-search, plans that kill, and who is turned away."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from autoprune.errors import Cancelled, ClusterError
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.cluster import Cluster
from autoprune.search.cluster_pool import cluster_pool
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.search.pool import DeadlyPlanError, EvaluationPool
from autoprune.search.searcher import Trial
from tests.components import missing
from tests.search.dask_cluster import DaskCluster, dask_cluster
from tests.search.pool_evaluators import Deadly
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem(measured=False)
WHOLE = PROBLEM.plan(PruningPolicy.uniform(0, 3))
PLANS = [PROBLEM.plan(PruningPolicy.uniform(ratio, 3)) for ratio in (0.2, 0.4, 0.6, 0.8)]
EVALUATIONS = 24


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two workers, started again whenever they end."""
    with dask_cluster(tmp_path_factory.mktemp("cluster"), 2, forked=True) as running:
        running.keep_workers()
        yield running


class Chaos:
    """Kills what the cluster consists of, at trials of its own choice: a progress callback."""

    def __init__(self, cluster: DaskCluster, **at: int) -> None:
        self._cluster, self._at = cluster, at
        self.killed = 0

    def __call__(self, done: int, total: int, trial: Trial) -> None:
        if trial.number == self._at.get("one_worker"):
            self._kill(workers(self._cluster)[:1])
        if trial.number == self._at.get("all_workers"):
            self._kill(workers(self._cluster))
        if trial.number == self._at.get("scheduler"):
            self._cluster.kill_scheduler()
            time.sleep(0.5)
            self._cluster.start_scheduler()
            self.killed += 1

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            process.send_signal(signal.SIGKILL)
        self.killed += len(processes)


def workers(cluster: DaskCluster) -> list[psutil.Process]:
    """What evaluates: the processes that the nannies' servers forked."""
    servers = [child for pid in cluster.worker_pids for child in psutil.Process(pid).children()]
    return [worker for server in servers for worker in server.children()]


def search(path: Path, pool: EvaluationPool | None, chaos: Chaos | None = None) -> tuple[list[Trial], list[object]]:
    """Return the trials of a search, and what its journal says."""
    evaluator = FormulaEvaluator(PROBLEM, [1, 2, 3], seconds=0.05)
    searcher = make_searcher("random", PROBLEM, seed=5, evaluations=EVALUATIONS)
    with Journal.open(path) as journal:
        result = run_search(
            PROBLEM,
            evaluator,
            searcher,
            evaluations=EVALUATIONS,
            journal=journal,
            batch=8,
            pool=pool,
            progress=chaos,
        )
        plans = [PROBLEM.plan(trial.policy) for trial in result.trials]
        found = [journal.get(evaluator.settings_key, plan) for plan in plans]
        assert len(journal) == EVALUATIONS
    return list(result.trials), [each and each.scores for each in found]


@pytest.mark.parametrize(
    ("at", "deaths", "losses"),
    [({"one_worker": 3, "all_workers": 12}, 3, {1, 2}), ({"scheduler": 6}, 1, {1, 2})],
    ids=["workers", "scheduler"],
)
def test_killed_in_mid_search_it_ends_as_if_never_killed(
    cluster: DaskCluster, tmp_path: Path, at: dict[str, int], deaths: int, losses: set[int]
) -> None:
    chaos, said = Chaos(cluster, **at), list[str]()
    with cluster_pool(Cluster(cluster.url), notice=said.append, wait_s=0.2) as pool:
        found = search(tmp_path / "cluster.sqlite", pool, chaos)
    expected = search(tmp_path / "alone.sqlite", None)
    assert untimed(found[0]) == untimed(expected[0])
    assert found[1] == expected[1]
    assert chaos.killed == deaths
    assert len([text for text in said if "were lost" in text]) in losses, said


def untimed(trials: list[Trial]) -> list[object]:
    return [(trial.number, trial.policy, trial.kept, trial.scores, trial.spent) for trial in trials]


def test_a_deadly_plan_is_named(cluster: DaskCluster) -> None:
    """The scheduler tries it four times itself before it says so."""
    evaluator = Deadly(PROBLEM)
    with cluster_pool(Cluster(cluster.url), wait_s=0.1, notice=lambda _: None) as pool:
        with pytest.raises(DeadlyPlanError, match=r"it keeps 16, 24, 32 channels\): .* ended the worker process 4"):
            list(pool.evaluate(evaluator, [WHOLE]))
        assert [each.scores for each in pool.evaluate(evaluator, PLANS)] == [evaluator.evaluate(plan) for plan in PLANS]


def evaluated(cluster: Cluster, *, said: list[str] | None = None, patience_s: float = 0.3) -> None:
    """Evaluate something there."""
    evaluator = FormulaEvaluator(PROBLEM)
    notice = ([] if said is None else said).append
    with cluster_pool(cluster, notice=notice, patience_s=patience_s) as pool:
        assert [each.scores for each in pool.evaluate(evaluator, PLANS)] == [evaluator.evaluate(plan) for plan in PLANS]


def test_workers_that_do_not_fit_are_turned_away(tmp_path: Path) -> None:
    said: list[str] = []
    with dask_cluster(tmp_path) as running:
        here = Cluster(running.url)
        with pytest.raises(ClusterError, match=r"the cluster at tcp://\S+ has had no workers for 0 s"):
            evaluated(here, said=said)
        assert said == [f"the cluster at {running.url} has no workers; waiting for them"]
        running.start_workers(1, "--nthreads", "2", "--resources", "GPU=1")
        with pytest.raises(ClusterError, match=r"has a worker of 2 threads .*--nthreads 1"):
            evaluated(here)
        with pytest.raises(ClusterError, match=r"has had no workers that offer GPU=2 for"):
            evaluated(replace(here, resources=(("GPU", 2),)))
        old = tmp_path / "old" / "autoprune-0.0.1.dist-info"
        old.mkdir(parents=True)
        (old / "METADATA").write_text("Metadata-Version: 2.1\nName: autoprune\nVersion: 0.0.1\n")
        running.start_workers(1, "--nthreads", "1", "--resources", "GPU=2", first=old.parent)
        with pytest.raises(ClusterError, match=rf"autoprune is {version('autoprune')} here and 0\.0\.1 at tcp://"):
            evaluated(replace(here, resources=(("GPU", 2),)))


def test_only_workers_that_were_checked_get_the_evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the workers is for other work, and has not the module that the evaluator's class is in."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with dask_cluster(tmp_path) as running:
        running.start_workers(1, "--nthreads", "1", "--resources", "GPU=1")
        running.start_workers(1, "--nthreads", "1", "--resources", "OTHER=1", first=bare(tmp_path, "tests"))
        here = Cluster(running.url)
        evaluated(replace(here, resources=(("GPU", 1),)))
        with pytest.raises(ClusterError, match=UNREADABLE):
            evaluated(replace(here, resources=(("OTHER", 1),)))


#: What is said of a worker that lacks a module.
UNREADABLE = r"worker tcp://\S+ cannot read what it is to evaluate \(.*ModuleNotFoundError"


def bare(folder: Path, package: str) -> Path:
    """Return where a package of this name lies that lacks ``search``; with PYTHONSAFEPATH it comes before the real one.

    It says so to the import system, which would else find ``search`` where a package is installed to be edited.
    """
    (folder / "bare" / package).mkdir(parents=True)
    lacking = f"import sys\n\nsys.modules['{package}.search'] = None\n"
    (folder / "bare" / package / "__init__.py").write_text(lacking)
    return folder / "bare"


@pytest.mark.parametrize("package", ["tests", "autoprune"])
def test_one_of_two_workers_cannot_read_the_evaluator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Whichever of them Dask sends it to first; it lacks the evaluator's module, or is of an older checkout."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with dask_cluster(tmp_path, 1) as running:
        running.start_workers(1, first=bare(tmp_path, package))
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(ClusterError, match=UNREADABLE):
                evaluated(Cluster(running.url))
            assert time.monotonic() - started < 20


def test_a_worker_that_comes_later_cannot_read_the_evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    evaluator = FormulaEvaluator(PROBLEM, seconds=0.5)
    with dask_cluster(tmp_path, 1) as running, cluster_pool(Cluster(running.url)) as pool:
        assert len(list(pool.evaluate(evaluator, PLANS[:1]))) == 1
        running.start_workers(1, first=bare(tmp_path, "tests"))
        with pytest.raises(ClusterError, match=UNREADABLE):
            list(pool.evaluate(evaluator, PLANS * 4))


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Cluster(f"tcp://127.0.0.1:{free.getsockname()[1]}")
        said: list[str] = []
        with pytest.raises(ClusterError, match=r"no Dask scheduler answered at tcp://127\.0\.0\.1:\d+ for 0 s"):
            evaluated(nobody, said=said, patience_s=0.1)
        with cluster_pool(nobody, notice=said.append) as pool, pytest.raises(Cancelled):
            list(pool.evaluate(FormulaEvaluator(PROBLEM), PLANS, should_stop=lambda: bool(said)))
    assert said == [f"no scheduler answers at {nobody.url} yet; waiting for it"]


def test_encrypted_and_reserved(tmp_path: Path) -> None:
    """A cluster that speaks TLS, asked by its own and by a stranger; its worker declares what an evaluation takes."""
    ours, theirs = (certificate(tmp_path, name) for name in ("ours", "theirs"))
    options = ("--tls-ca-file", ours, "--tls-cert", ours, "--tls-key", ours.with_suffix(".key"))
    with dask_cluster(tmp_path, scheme="tls", options=[str(option) for option in options]) as running:
        running.start_workers(1, "--nthreads", "1", "--resources", "GPU=1")
        right = Cluster(running.url, (("GPU", 0.5),), ours, ours, ours.with_suffix(".key"))
        evaluated(right, patience_s=30)
        with pytest.raises(ClusterError, match=r"the certificates are not taken"):
            evaluated(replace(right, ca=theirs, cert=theirs, key=theirs.with_suffix(".key")), patience_s=30)


def certificate(folder: Path, name: str) -> Path:
    """Make a certificate that signs itself."""
    if shutil.which("openssl") is None:
        missing("openssl", "apt-get install openssl")
    path = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run(
        [*command, "-keyout", str(path.with_suffix(".key")), "-out", str(path)], check=True, capture_output=True
    )
    return path
