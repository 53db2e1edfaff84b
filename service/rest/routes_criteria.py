"""The catalogue of criteria over REST."""

from fastapi import APIRouter

from autoprune.criteria.catalog import CRITERIA
from autoprune.service.rest.views import CriterionView

router = APIRouter(prefix="/v1/criteria", tags=["criteria"])


@router.get("", summary="List criteria")
def get_criteria() -> list[CriterionView]:
    """Return what channels and single weights can be ranked by: the meaning, the needs and the paper of each."""
    return [CriterionView.of(criterion) for criterion in CRITERIA.values()]
