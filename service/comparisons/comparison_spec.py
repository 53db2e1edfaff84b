"""What a comparison is asked to do: what a job is, and how often."""

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from autoprune.service.specs.front_options import FrontOptions
from autoprune.service.specs.job_spec import EXAMPLE_DATASET_ID, EXAMPLE_MODEL_ID, JobSpec

#: Policies of every comparison: who does not beat these was not worth its time.
ALWAYS = ("uniform", "random", "sensitivity")


class ComparisonSpec(JobSpec):
    """One comparison: a job, every search of which is run with several seeds where its policy draws anything.

    Model, images, splits, budget and number of evaluations are the same for all.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": EXAMPLE_MODEL_ID, "dataset": "digits", "budget": "macs=50%", "seeds": 3},
                {
                    "model": EXAMPLE_MODEL_ID,
                    "dataset": EXAMPLE_DATASET_ID,
                    "budget": "macs=50%,params=60%",
                    "policies": ["uniform", "random", "sensitivity", "exact", "amc"],
                    "seeds": 5,
                    "evaluations": 200,
                    "finetune_epochs": 10,
                },
            ]
        },
    )

    policies: tuple[str, ...] = Field(
        default=(*ALWAYS, "exact"),
        strict=False,
        min_length=1,
        max_length=32,
        description="Who proposes the ratios; all of them get the same number of evaluations. Uniform, random and "
        "sensitivity are in every comparison: those that are not named come first.",
        examples=[["uniform", "random", "sensitivity", "exact"]],
    )
    seeds: int = Field(
        default=3,
        ge=1,
        le=100,
        description="How often each policy searches, with the seeds 0, 1 and so on; policies that draw nothing search "
        "once.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Of everything random but the searches: it deals the images, refits and fine-tunes.",
    )

    @field_validator("front")
    @classmethod
    def _refuse_front(cls, value: FrontOptions | None) -> FrontOptions | None:
        """Refuse a front: its search has more to do than those it would be compared with."""
        if value is not None:
            raise PydanticCustomError("front", "a comparison is of plans within one budget; search for a front alone")
        return value

    @field_validator("policies")
    @classmethod
    def _add_baselines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Put the baselines that are missing first."""
        return (*(name for name in ALWAYS if name not in value), *value)
