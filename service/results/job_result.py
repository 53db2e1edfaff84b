"""What a finished job says: one JSON document that the command line, the page and the report all read."""

from pydantic import BaseModel, ConfigDict

FORMAT = "autoprune-result/1"

#: Its file in the folder of the job.
FILE = "result.json"

#: The page about it, of jobs and of comparisons.
REPORT = "report.html"


class Value(BaseModel):
    """Part of a result: never changed, and without fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoresView(Value):
    """Quality of one network on one split; None without labels (top1, top5, loss) or with few classes (top5)."""

    top1: float | None
    top5: float | None
    loss: float | None
    agreement: float | None
    kl: float | None
    images: int


class GroupView(Value):
    """One channel group of the unpruned network.

    Attributes:
        kernel: Height and width of the kernel of its first layer; None where that is no convolution.

    """

    name: str
    units: int
    producers: list[str]
    consumers: list[str]
    macs_share: float
    params_share: float
    residual: bool
    frozen: str | None
    kernel: list[int] | None = None


class TrialView(Value):
    """One evaluated candidate of a search.

    Attributes:
        spent: What the search had spent when it was known, in evaluations on all search images.
        seconds: The same in seconds, had the search run alone in one process; None where a journal does not say.

    """

    number: int
    objective: float
    cost: dict[str, int]
    probe: bool
    screened_out: bool = False
    proxied: bool = False
    spent: float | None = None
    seconds: float | None = None

    @property
    def competes(self) -> bool:
        """Whether the candidate could have won: no probe, and scored on all search images."""
        return not (self.probe or self.screened_out or self.proxied)


class ScreeningView(Value):
    """How a search screened its proposals, and how well the cheap scores ranked the full ones.

    Attributes:
        images: Search images of a cheap score.
        screened_out: Candidates that were scored cheaply only.
        full: Candidates that were scored on all images, probes included.
        pairs: Candidates that were scored both ways.
        kendall_tau: Rank correlation of both scores over these pairs; None where it is not defined.
        audit_tau: The same over the first pairs, by which screening was judged.
        turned_off: Why screening was turned off; None if it was not.

    """

    images: int
    screened_out: int
    full: int
    pairs: int
    kendall_tau: float | None
    audit_tau: float | None
    turned_off: str | None


class AmcView(Value):
    """How a search of policy amc went.

    Attributes:
        reward: What its agent learned to raise, by name.
        first: Number of its first own trial; the ones before are a warm start's.
        episodes: Trials of its own.
        allowed: Evaluations that these might have cost; with screening there may be more trials.
        warmup: Of them, episodes with uniform actions at the start.
        experience: Trials of other policies that it learned from first.
        agent: The agent that it went on with; None where it began with an untrained one.
        stopped_below: What the episodes left were expected to gain less than when it stopped early; None if it did not.

    """

    reward: str
    first: int
    episodes: int
    allowed: int
    warmup: int
    experience: int
    agent: str | None
    stopped_below: float | None


class AuditView(Value):
    """How a proxy ranked random plans that were fine-tuned besides.

    Attributes:
        plans: Number of plans.
        kendall_tau: Rank correlation of the proxy's scores with those after fine-tuning, on the search split; None
            where it is not defined.
        p_value: Probability of such a tau by chance.
        failure: Why the proxy cannot be trusted to rank; None where it can.

    """

    plans: int
    kendall_tau: float | None
    p_value: float | None
    failure: str | None


class PruningNetView(Value):
    """The PruningNet that policy metapruning searched with.

    Attributes:
        images: Images it was trained on.
        losses: Mean loss of every epoch.
        predicted: Scores of the winner on the search split with predicted weights, as its search saw them.
        audit: How it ranks; None where nobody asked.

    """

    images: int
    losses: list[float]
    predicted: ScoresView
    audit: AuditView | None


class Int8View(Value):
    """How an int8 file does, in onnxruntime.

    Attributes:
        search: Scores on the search split.
        search_fp32: The same of the float32 file that it was made of.
        report: Scores on the report split.
        calibration_images: Fit images that it was calibrated on.

    """

    search: ScoresView
    search_fp32: ScoresView
    report: ScoresView
    calibration_images: int


class FrontPoint(Value):
    """A plan of a front that was exported: not fine-tuned, otherwise as a policy's winner.

    Attributes:
        trial: Number of its trial.
        kept: Units kept per decision group, by group name.
        search: Scores on the search split, as the search saw it.
        search_refit: The same after the refit; None where there was none, or where it did not help.
        report: Scores on the report split, after the refit if it helped.
        int8: Scores of the int8 file, of jobs that export one.
        certificate: The certificate of the exported file, as in its own JSON file.
        artifacts: File names within the job's folder, by kind, as of an outcome.

    """

    trial: int
    kept: dict[str, int]
    cost: dict[str, int]
    search: ScoresView
    search_refit: ScoresView | None
    report: ScoresView
    int8: Int8View | None = None
    certificate: dict[str, object]
    artifacts: dict[str, str]


class PolicyOutcome(Value):
    """What one policy found, and what became of it.

    Attributes:
        kept: Units kept per decision group, by group name.
        search: Scores of the winner on the search split, as the search saw it.
        search_refit: The same after the refit; None where there was none, or where it did not help.
        search_finetuned: The same after fine-tuning; None without fine-tuning.
        report: Scores on the report split, after the refit if it helped, before fine-tuning.
        report_finetuned: The same after fine-tuning; None without fine-tuning.
        screening: What screening did; None without.
        front: Numbers of the trials of a front, the dearest first, of policies that look for plans of several costs.
        front_quantity: The cost that a front trades for score, of jobs that look for one; its plans are exported.
        front_points: The plans of that front that were exported, the dearest first.
        amc: How the search went, of policy amc.
        pruningnet: What all trials but the last were scored by, of policy metapruning.
        int8: Scores of the int8 file, of jobs that export one.
        certificate: The certificate of the exported file, as in its own JSON file.
        artifacts: File names within the job's folder, by kind (onnx, plan, weights, certificate; of amc, agent; of
            jobs that export int8, int8).
        seed: Of the search, in a comparison; None where that is the job's, or where the policy draws nothing.

    """

    policy: str
    evaluations: int
    cached: int
    seconds: float
    kept: dict[str, int]
    cost: dict[str, int]
    search: ScoresView
    search_refit: ScoresView | None
    search_finetuned: ScoresView | None
    report: ScoresView
    report_finetuned: ScoresView | None
    trials: list[TrialView]
    screening: ScreeningView | None = None
    front: list[int] = []
    front_quantity: str | None = None
    front_points: list[FrontPoint] = []
    amc: AmcView | None = None
    pruningnet: PruningNetView | None = None
    int8: Int8View | None = None
    certificate: dict[str, object]
    artifacts: dict[str, str]
    seed: int | None = None

    @property
    def search_pruned(self) -> ScoresView:
        """Scores on the search split of the network that `report` speaks of: after the refit if it helped."""
        return self.search_refit or self.search


class ContinuedView(Value):
    """What of an earlier job was of use to one that went on from it.

    Attributes:
        source: The earlier job's folder.
        budget: Its budget.
        known: Networks that it had scored, of those that this job allows.
        reused: Of these, the ones that this job tried, and did not evaluate again.

    """

    source: str
    budget: str
    known: int
    reused: int


class JobResult(Value):
    """A whole job: the unpruned network, every policy's outcome, and the one to take.

    Attributes:
        model_sha256: Fingerprint of the network (its wiring and weights, not the bytes of its file).
        normalization: What was done to images scaled to 0..1: ``means/stds``, or ``none``.
        limits: Absolute limits of the budget, ``{quantity: largest allowed cost}``.
        cost: Cost of the unpruned network.
        int8: Scores of the unpruned network's int8 file, of jobs that export int8.
        best: Name of the policy whose final network is best on the search split; the report split never chooses.
        decision_groups: Names of the groups that were searched, in order.
        warnings: What the reader of the numbers should know.
        continued: What of an earlier job was of use; None where the job began anew.

    """

    format: str = FORMAT
    model: str
    architecture: str | None
    model_sha256: str
    dataset: str
    normalization: str
    input_shape: list[int]
    budget: str
    limits: dict[str, int]
    cost: dict[str, int]
    groups: list[GroupView]
    decision_groups: list[str]
    search: ScoresView
    report: ScoresView
    int8: Int8View | None = None
    outcomes: list[PolicyOutcome]
    best: str
    warnings: list[str]
    seed: int
    seconds: float
    continued: ContinuedView | None = None
