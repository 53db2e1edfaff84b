"""How far a job is."""

from pydantic import BaseModel, ConfigDict, Field


class Progress(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str = Field(
        description="load, pruningnet, audit, cluster, search, study, refit, finetune, export, measure, report, done.",
        examples=["search"],
    )
    done: int = Field(ge=0, description="Steps of this stage that are done.", examples=[42])
    total: int = Field(ge=0, description="Steps of this stage; 0 where that is not known.", examples=[100])
    message: str = Field(default="", description="What the steps are, in words.", examples=["candidates evaluated"])
    policy: str | None = Field(
        default=None, description="The policy at work, if it is one's own stage.", examples=["uniform"]
    )
    seed: int | None = Field(default=None, description="The seed of its search, in a comparison.", examples=[None])
