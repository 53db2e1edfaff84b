"""Models over REST."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Response, UploadFile

from autoprune.service.rest.dependencies import TheService, documented, only_fields
from autoprune.service.rest.pages import PAGED, ThePage
from autoprune.service.rest.uploads import add_model, shape_of
from autoprune.service.rest.views import ModelView
from autoprune.service.storage.tables import ModelRow

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    status_code=201,
    summary="Upload a model",
    responses={200: {"model": ModelView, "description": "Known already"}, **documented(413, 422)},
    dependencies=[Depends(only_fields("file", "architecture", "num_classes", "input_shape"))],
)
def post_model(
    service: TheService,
    response: Response,
    file: Annotated[UploadFile, "ONNX, or safetensors for a named architecture"],
    architecture: Annotated[str | None, Form(max_length=100, examples=["resnet56_cifar"])] = None,
    num_classes: Annotated[int | None, Form(ge=1, le=1_000_000, examples=[10])] = None,
    input_shape: Annotated[str | None, Form(max_length=40, examples=["3,32,32"])] = None,
) -> ModelView:
    """Check a model by reading it, and keep it: ONNX, or safetensors and the `architecture` that they belong to.

    `num_classes` is for a zoo architecture; `input_shape` (`C,H,W`) also for ONNX files that leave it open. The same
    upload again gives the same model, with status 200.
    """
    row, is_new = add_model(
        service.settings,
        service.records,
        service.store,
        file.file,
        file.filename or "",
        architecture=architecture,
        num_classes=num_classes,
        input_shape=None if input_shape is None else shape_of(input_shape),
    )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return ModelView.of(row)


@router.get("", summary="List models", responses=PAGED)
def get_models(service: TheService, page: ThePage) -> list[ModelView]:
    """Return the newest models, newest first."""
    rows = service.records.all(ModelRow, limit=page.needed, after=page.after)
    return [ModelView.of(row) for row in page.of(rows, lambda row: row.id)]


@router.get("/{model_id}", summary="Show a model", responses=documented(404))
def get_model(service: TheService, model_id: str) -> ModelView:
    """Return one model."""
    return ModelView.of(service.records.find(ModelRow, model_id))
