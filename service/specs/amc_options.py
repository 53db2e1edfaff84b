"""What can be chosen about policy amc in a job; the command line and REST fill in the same values."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from autoprune.search.amc.settings import AmcSettings

#: Proposals that a job asks for at a time: what workers share, and what screening chooses from.
BATCH = 16

#: What policy amc leaves in a job's folder besides the files of every policy: its agent, its log for TensorBoard.
AGENT_ARTIFACT, LOG_FOLDER = "amc/agent.safetensors", "amc/tensorboard"


#: What is not chosen is what the search itself takes, never a second default.
_DEFAULT = AmcSettings()


class AmcOptions(BaseModel):
    """How policy amc searches; only used where `policies` names it. Defaults are those of the search."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    reward: Literal["-error", "-error*log(macs)", "-error*log(params)"] = Field(
        default=_DEFAULT.reward,  # type: ignore[arg-type]  # one of them, as a test makes sure
        description="What the agent learns to raise: minus the error, or that times the logarithm of a cost.",
    )
    warmup_episodes: int | None = Field(
        default=_DEFAULT.warmup_episodes,
        ge=0,
        le=1_000_000,
        description="Episodes with uniform actions before the agent is asked; None: as many as in the "
        "original, fewer in short searches, none for an agent that was trained before.",
    )
    parallel_episodes: int = Field(
        default=_DEFAULT.parallel_episodes,
        ge=1,
        le=BATCH,
        description="Episodes that the agent walks before it learns from them, so that workers share their evaluation; "
        "1: as in the original.",
    )
    fill: bool = Field(
        default=_DEFAULT.fill,
        description="Widen what an episode leaves of the budget, and learn from that.",
    )
    free_episodes: int = Field(
        default=_DEFAULT.free_episodes,
        ge=0,
        le=1000,
        description="How many episodes in a row are learned from without an evaluation where they end in a policy that "
        "was evaluated before.",
    )
    stop_early: bool = Field(
        default=_DEFAULT.stop_early,
        description="End when the episodes left are expected to gain less than the standard error of a score.",
    )
    experience: bool = Field(
        default=False,
        description="Learn first from the trials of the policies before amc in `policies`; they stand in for episodes "
        "of the warm-up.",
    )
    agent: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None,
        description="Go on with the agent of an earlier amc search, of this or another network or budget. "
        "REST: the id of a job that succeeded. Command line: its amc/agent.safetensors.",
        examples=["job_5f1c0e1b8a7d4c7e9b1f2a3d", "runs/mine/amc/agent.safetensors"],
    )
    tensorboard: bool = Field(default=False, description="Log to amc/tensorboard in the job's folder.")
