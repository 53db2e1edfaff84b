"""What every step of a job, or of a comparison, works with; and how it begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoprune.certificate import export_checked
from autoprune.evaluation.evaluator import Evaluator
from autoprune.search.cluster import Cluster
from autoprune.service.pipeline.continuing import Earlier
from autoprune.service.pipeline.finalist import FILES
from autoprune.service.pipeline.inputs import Inputs, load_inputs
from autoprune.service.pipeline.job_files import STUDIES
from autoprune.service.pipeline.latency_check import Timer, measured_here
from autoprune.service.pipeline.quantized import Quantized, quantized
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.pipeline.searchers import check_policies, check_searchers
from autoprune.service.specs.front_options import FOLDER
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.progress import Progress

#: Images compared between the exported file and the pruned network.
PARITY_IMAGES = 64

#: The unpruned network, written out as the pruned ones are, to be timed beside them.
UNPRUNED = "unpruned.onnx"


@dataclass(frozen=True, slots=True)
class Job:
    """What every step of one job works with.

    Attributes:
        spec: What to do. Its seed deals the images, refits and fine-tunes.
        inputs: Network, images and problem.
        evaluator: Scores candidates.
        directory: Folder of the artifacts.
        progress: Told how far the job is.
        should_stop: Asked now and then whether to stop.
        timer: Times files on the device that `spec` names; without, this machine times them.
        seed: Of the searches.
        earlier: The job that it goes on from; None where it begins anew.
        int8: The int8 file of the unpruned network, in jobs that export int8.
        cluster: Where candidates are evaluated; None for this machine.

    """

    spec: JobSpec
    inputs: Inputs
    evaluator: Evaluator
    directory: Path
    progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    timer: Timer | None
    seed: int
    earlier: Earlier | None
    int8: Quantized | None = None
    cluster: Cluster | None = None

    def say(self, stage: str, done: int, total: int, message: str, policy: str | None = None) -> None:
        """Report progress."""
        self.progress(Progress(stage=stage, done=done, total=total, message=message, policy=policy))

    def seeded(self, seed: int) -> "Job":
        """Return the job of one search of several: with a seed, a folder and progress of its own."""

        def progress(said: Progress) -> None:
            self.progress(said.model_copy(update={"seed": seed}))

        return replace(self, seed=seed, directory=self.directory / f"seed-{seed}", progress=progress)

    @property
    def search_spec(self) -> JobSpec:
        """The spec as a search takes it: with the seed of the search."""
        return self.spec.model_copy(update={"seed": self.seed})

    @property
    def unpruned(self) -> Path:
        """ONNX file of the unpruned network."""
        return self.directory / UNPRUNED

    @property
    def deployed_unpruned(self) -> Path:
        """The file that pruned ones are timed beside: in int8 where these are."""
        return self.unpruned if self.int8 is None else self.int8.path

    def quantized(self, onnx: Path) -> Quantized | None:
        """Write and score the int8 file of a float32 file, in jobs that export int8."""
        if not self.spec.int8:
            return None
        self.say("export", 0, 1, "quantising to int8")
        splits = self.inputs.splits
        return quantized(onnx, splits, Scorer(splits.search, self.inputs.problem.network.module))

    @property
    def is_timed_on_device(self) -> bool:
        """Whether files are timed on the device that the job's latency table is of."""
        table = self.inputs.latencies
        return table is not None and (self.timer is not None or measured_here(table))


def start_job(
    spec: JobSpec,
    directory: Path,
    *,
    results: Sequence[str],
    progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    timer: Timer | None,
    cluster: Cluster | None,
) -> Job:
    """Load what a job works with, remove its `results` of an earlier run, and export the unpruned network.

    Without `cluster` it is the one that the environment names, if it names one.

    Raises:
        AutopruneError: Bad input, or an infeasible budget; nothing that could be quantised, in jobs that export int8.

    """
    cluster = cluster or Cluster.from_environment()
    earlier = Earlier.of(spec)
    settled = spec if earlier is None else earlier.settled(spec)
    inputs = load_inputs(settled, progress, partial(check_policies, spec))
    directory.mkdir(parents=True, exist_ok=True)
    for name in results:
        (directory / name).unlink(missing_ok=True)
    certificate = FILES["certificate"]  # never beside a model file that it was not measured on
    for pattern in (f"*/{certificate}", f"*/{FOLDER}/*/{certificate}", f"{STUDIES}*", f"seed-*/{STUDIES}*"):
        for stale in directory.glob(pattern):
            stale.unlink()
    evaluator = Evaluator(inputs.problem, inputs.splits.for_search(), precision=inputs.precision)
    if earlier is not None:
        earlier.check(evaluator)
    check_searchers(spec, inputs.problem, directory)
    job = Job(spec, inputs, evaluator, directory, progress, should_stop, timer, spec.seed, earlier, cluster=cluster)
    network = inputs.problem.network
    images = inputs.splits.search.inputs[:PARITY_IMAGES]
    export_checked(
        network.module, job.unpruned, input_shape=network.input_shape, images=images, limits={}, opset=spec.opset
    )
    return replace(job, int8=job.quantized(job.unpruned))
