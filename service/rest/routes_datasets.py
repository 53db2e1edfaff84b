"""Datasets over REST."""

from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from autoprune.service.engine.job_inputs import BUILTIN
from autoprune.service.engine.service import Service
from autoprune.service.rest.dependencies import TheService, check_fields, documented
from autoprune.service.rest.pages import PAGED, ThePage
from autoprune.service.rest.upload_readers import TheReaders, UploadReaders
from autoprune.service.rest.uploads import add_dataset, builtin_dataset
from autoprune.service.rest.views import BuiltinDataset, DatasetView
from autoprune.service.storage.tables import DatasetRow

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {"file": {"type": "string", "format": "binary", "description": "A .zip or .npz file"}},
            }
        },
        "application/json": {"schema": BuiltinDataset.model_json_schema(), "example": {"builtin": "digits"}},
    },
}


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset, or name a built-in one",
    responses={
        200: {"model": DatasetView, "description": "Known already"},
        **documented(400, 413, 415, 422),
    },
    openapi_extra={"requestBody": _BODY},
)
async def post_dataset(service: TheService, readers: TheReaders, request: Request, response: Response) -> DatasetView:
    """Check a dataset by looking into it, and keep it: a zip of `class/name.jpg`, or a `.npz` of images and labels.

    Images without class folders, and arrays without `labels`, are unlabelled. The same upload again gives the same
    dataset, with status 200. `{"builtin": "digits"}` as JSON gives scikit-learn's digits.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            view, is_new = await _uploaded(service, readers, request)
        elif kind == "application/json":
            view, is_new = await _named(request), False
        else:
            raise HTTPException(415, f"expected multipart/form-data or application/json, found {kind[:100]!r}")
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection was closed before the upload was complete") from error
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/datasets/{view.id}"
    return view


@router.get("", summary="List datasets", responses=PAGED)
def get_datasets(service: TheService, page: ThePage) -> list[DatasetView]:
    """Return the newest datasets, newest first, and the built-in one last."""
    if page.after == BUILTIN:
        return []
    rows = service.records.all(DatasetRow, limit=page.needed, after=page.after)
    views = [DatasetView.of(row) for row in rows]
    if len(rows) < page.needed:
        views.append(builtin_dataset())
    return list(page.of(views, lambda view: view.id))


@router.get("/{dataset_id}", summary="Show a dataset", responses=documented(404))
def get_dataset(service: TheService, dataset_id: str) -> DatasetView:
    """Return one dataset."""
    if dataset_id == BUILTIN:
        return builtin_dataset()
    return DatasetView.of(service.records.find(DatasetRow, dataset_id))


async def _uploaded(service: Service, readers: UploadReaders, request: Request) -> tuple[DatasetView, bool]:
    """Add the dataset of a form."""
    async with request.form(max_files=1, max_fields=1) as form:
        check_fields([name for name, _ in form.multi_items()], ("file",))
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise RequestValidationError(
                [{"type": "missing", "loc": ("body", "file"), "msg": "expected a file", "input": None}]
            )
        stored = service.settings, service.records, service.store
        row, is_new = await readers.run(partial(add_dataset, *stored, upload.file, upload.filename or ""))
    return DatasetView.of(row), is_new


async def _named(request: Request) -> DatasetView:
    """Return the built-in dataset of a JSON document."""
    try:
        BuiltinDataset.model_validate_json(await request.body())
    except ValidationError as error:
        errors = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(errors) from error
    return await run_in_threadpool(builtin_dataset)
