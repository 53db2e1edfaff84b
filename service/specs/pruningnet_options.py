"""What can be chosen about policy metapruning in a job; the command line and REST fill in the same values."""

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

#: The policy that searches with predicted weights.
METAPRUNING = "metapruning"

#: Fewest plans of an audit: with four even a perfect ranking could be chance. As in autoprune.search.proxy_audit, which
#: imports torch: not for reading a spec.
FEWEST_PLANS = 5


class PruningNetOptions(BaseModel):
    """How the PruningNet is trained that policy metapruning searches with; only used where `policies` names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    epochs: int = Field(default=6, ge=1, le=10_000, description="Passes over the images.")
    images: int | None = Field(
        default=None, ge=2, le=10_000_000, description="Train on the first so many fit images; None: all."
    )
    from_scratch: bool = Field(
        default=False,
        description="Predict whole weights and learn from the labels, as in the paper, instead of corrections to the "
        "trained weights that are learned from the unpruned network's answers.",
    )
    audit_plans: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Fine-tune so many random plans, and say whether predicted weights rank them alike; 0: none, else "
        f"at least {FEWEST_PLANS}.",
    )

    @field_validator("audit_plans")
    @classmethod
    def _check_audit(cls, value: int) -> int:
        """Refuse an audit that cannot show anything."""
        if 0 < value < FEWEST_PLANS:
            raise PydanticCustomError("audit_plans", "expected 0 or at least 5: fewer plans can rank alike by chance")
        return value
