"""What a policy ends with on its way to the report: its winner, the files of it, and how long these take."""

from dataclasses import dataclass
from pathlib import Path

from torch import fx

from autoprune.evaluation.metrics import Scores
from autoprune.latency_tables.measure import Latency
from autoprune.pruning.plan import Plan
from autoprune.search.driver import SearchResult
from autoprune.service.pipeline.quantized import Quantized
from autoprune.service.results.job_result import AmcView, PruningNetView

#: The files of every policy, by kind.
FILES = {
    "onnx": "model.onnx",
    "plan": "plan.json",
    "weights": "weights.safetensors",
    "certificate": "certificate.json",
}


@dataclass(frozen=True, slots=True)
class Recovered:
    """A search's winner after its recovery, before it is exported.

    Attributes:
        plan: What it keeps.
        before: The pruned network as the search scored it, or after the refit.
        search_refit: Scores of `before` on the search split where the refit helped; else None.
        unsolved: Layers that keep their trained weights because their equations are singular.
        finetuned: The same after fine-tuning; None without.
        search_finetuned: Scores of `finetuned` on the search split.
        masked_error: Difference between masked and pruned network.

    """

    plan: Plan
    before: fx.GraphModule
    search_refit: Scores | None
    unsolved: tuple[str, ...]
    finetuned: fx.GraphModule | None
    search_finetuned: Scores | None
    masked_error: float

    @property
    def final(self) -> fx.GraphModule:
        """The network that is delivered."""
        return self.finetuned or self.before


@dataclass(frozen=True, slots=True)
class Finalist:
    """What one policy ends with, before the report split is opened.

    Attributes:
        policy: Its name.
        folder: Where its files lie.
        search: What it found.
        amc: How its search went, of policy amc.
        pruningnet: What its search went by, of policy metapruning.
        recovered: The winner after its recovery.
        parity_error: Difference between the exported file and the network.
        parity_images: Images that was measured on.
        cost: Cost counted in the exported file.
        int8: Its int8 file; None without.

    """

    policy: str
    folder: Path
    search: SearchResult
    amc: AmcView | None
    pruningnet: PruningNetView | None
    recovered: Recovered
    parity_error: float
    parity_images: int
    cost: dict[str, int]
    int8: Quantized | None = None

    @property
    def onnx(self) -> Path:
        """The exported file."""
        return self.folder / FILES["onnx"]

    @property
    def deployed(self) -> Path:
        """The file that is timed and that a budget of latency speaks of: in int8 where there is such a file."""
        return self.onnx if self.int8 is None else self.int8.path


@dataclass(frozen=True, slots=True)
class Timed:
    """Latencies of the unpruned and the pruned file, timed in turn, both in int8 where the job exports int8.

    Attributes:
        unpruned: Of the unpruned network.
        pruned: Of the finalist.
        on_device: Whether they were timed on the device of the job's latency table.
        pruned_fp32: Of the finalist's float32 file, where the others are in int8.

    """

    unpruned: Latency
    pruned: Latency
    on_device: bool
    pruned_fp32: Latency | None = None

    def to_dict(self) -> dict[str, object]:
        """Return what a certificate says about them."""
        fp32 = {} if self.pruned_fp32 is None else {"pruned_fp32": self.pruned_fp32.to_dict()}
        return {
            "precision": "int8" if fp32 else "fp32",
            "pruned": self.pruned.to_dict(),
            "unpruned": self.unpruned.to_dict(),
            **fp32,
            # medians of a busy machine differ up to sevenfold, 10th percentiles hardly
            "speedup": self.unpruned.p10_ms / self.pruned.p10_ms,
        }
