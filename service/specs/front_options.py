"""What can be chosen about a front in a job; the command line and REST fill in the same values. Needs no torch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: The policy that looks for a front, as :data:`autoprune.search.front.NSGA2`.
NSGA2 = "nsga2"

#: Folder of the plans of a front, within that of their policy.
FOLDER = "front"


class FrontOptions(BaseModel):
    """Which front policy nsga2 looks for: plans of many costs, from a lower end up to the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    least: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="Lower end, written like a budget of one quantity: the one that is traded for score.",
        examples=["macs=30%"],
    )
    points: int = Field(
        default=12,
        ge=1,
        le=1000,
        description="Most plans of the front that are exported, spread evenly over the costs, both ends included.",
    )
