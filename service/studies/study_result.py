"""What a study found, as a document: ``study.json``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: Files of a study.
FILE, TABLE = "study.json", "study.csv"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CurveView(_Part):
    """One group pruned alone: points by share removed, ascending, from the whole network on."""

    group: str
    channels: int
    recovery: Literal["none", "batchnorm", "reconstruction"]
    removed: list[float] = Field(description="Share of the channels.")
    kept: list[int] = Field(description="Channels left.")
    quality: list[float] = Field(description="Accuracy on the search images; agreement without labels.")
    loss: list[float] = Field(description="Cross entropy there; divergence without labels; in nats.")


class CorrelationView(_Part):
    """Rank correlation of a criterion with the oracle; null where one of them tells nothing apart."""

    spearman: float | None
    kendall: float | None
    channels: int = Field(description="How many were ranked.")


class CriterionView(_Part):
    """One criterion against the oracle."""

    criterion: str
    together: CorrelationView = Field(
        description="Over the channels of all groups, scores as policy global takes them."
    )
    normalised: CorrelationView = Field(description="The same, scores divided by their l2 norm over the group.")
    groups: dict[str, CorrelationView]


class OracleView(_Part):
    """What single channels are worth, and which criteria know it."""

    images: int = Field(description="Fit images that the loss was measured on.")
    loss: float = Field(description="Of the whole network on these, in nats.")
    channels: dict[str, list[int]] = Field(description="By group, the channels that were left out.")
    changes: dict[str, list[float]] = Field(description="By group, what the loss gained without each of them, in nats.")
    criteria: list[CriterionView]
    left_out: dict[str, str] = Field(description="Criteria that cannot score this network, and why.")


class RunView(_Part):
    """One run of a schedule: after each cut, MACs and channels left, accuracy before and after its training."""

    schedule: Literal["one shot", "iterative"]
    seed: int
    macs: list[float] = Field(description="Share of the whole network's.")
    channels: list[int]
    before: list[float]
    after: list[float]


class StudyResult(_Part):
    """One study."""

    format: Literal["autoprune-study/1"] = "autoprune-study/1"
    study: Literal["sensitivity", "oracle", "schedule"]
    model: str
    model_sha256: str
    dataset: str
    settings: dict[str, object] = Field(description="The options of this kind of study.")
    seed: int
    labels: bool
    fit_images: int
    search_images: int
    quality: float = Field(description="Of the whole network on the search images: accuracy, or 1 without labels.")
    curves: list[CurveView] = []
    oracle: OracleView | None = None
    runs: list[RunView] = []
    seconds: float
