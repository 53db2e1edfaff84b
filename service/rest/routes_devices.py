"""Latency tables, and devices that fetch work, over REST."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Path, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from autoprune.errors import UnknownNameError
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.table import LatencyTable
from autoprune.service.devices.kit import KitOptions
from autoprune.service.devices.tables import StoredTable, TableStore, check_is_of, device_of
from autoprune.service.devices.work import MOST_RESULT_BYTES, accept_result, queue_model, stored_file
from autoprune.service.engine.service import Service
from autoprune.service.rest.dependencies import TheService, documented, only_fields
from autoprune.service.rest.device_views import DeviceView, LatencyTableView, TakenWork, WorkView
from autoprune.service.rest.pages import PAGED, ThePage
from autoprune.service.rest.upload_readers import TheReaders
from autoprune.service.rest.uploads import clean_name, load_stored
from autoprune.service.storage.device_records import DeviceRecords
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.file_store import TooLargeError
from autoprune.service.storage.states import WorkState
from autoprune.service.storage.tables import DeviceWorkRow, ModelRow

router = APIRouter(prefix="/v1", tags=["devices"])

DeviceName = Annotated[str, Path(description="Name of a device.", examples=["pixel-8"])]


class WorkRequest(BaseModel):
    """What a device is asked to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: str = Field(description="An uploaded model.", examples=["mdl_0a1b2c3d4e5f60718293a4b5"])
    units: bool = Field(default=True, description="Whether to make a latency table, or to time networks alone.")
    networks: int = Field(default=9, ge=3, le=100, description="Random pruned networks that are timed whole.")
    threads: int = Field(default=1, ge=1, le=256)
    precision: Literal["fp32", "int8"] = Field(
        default="fp32", description="int8: for networks that jobs with `int8` quantise after pruning."
    )
    time_budget_s: float = Field(default=600.0, gt=0, le=86_400)
    max_ratio: float = Field(default=0.9, gt=0, lt=1)
    include_residual: bool = True


@router.post(
    "/latency-tables",
    status_code=201,
    summary="Upload a latency table",
    responses={200: {"model": LatencyTableView, "description": "Merged into a known table"}, **documented(413, 422)},
    dependencies=[Depends(only_fields("file", "device"))],
)
def post_table(
    service: TheService,
    response: Response,
    file: Annotated[UploadFile, "latency-table.json of a device kit"],
    device: Annotated[str | None, Form(max_length=64, examples=["pixel-8"])] = None,
) -> LatencyTableView:
    """Check a table and keep it. A table of a known device and the same conditions is merged: newer times win.

    With `device`, tables of other devices are refused.
    """
    table = LatencyTable.from_json(_content(file), clean_name(file.filename or "latency table"))
    if device is not None:
        check_is_of(table, device)
    stored, is_new = _tables(service).add(table)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/latency-tables/{stored.id}"
    return LatencyTableView.of(stored)


@router.get("/latency-tables", summary="List latency tables", responses=PAGED)
def get_tables(service: TheService, page: ThePage) -> list[LatencyTableView]:
    """Return stored tables by id."""
    tables = _tables(service)
    return [LatencyTableView.of(tables.get(table_id)) for table_id in page.of_sorted(tables.ids())]


@router.get("/latency-tables/{table_id}", summary="Show a latency table", responses=documented(404))
def get_table(service: TheService, table_id: str) -> LatencyTableView:
    """Return what a table is valid for, and how good it is."""
    return LatencyTableView.of(_stored(service, table_id))


@router.get(
    "/latency-tables/{table_id}/file",
    summary="Download a latency table",
    response_class=FileResponse,
    responses=documented(404),
)
def get_table_file(service: TheService, table_id: str) -> FileResponse:
    """Return the table itself (docs/latency-table.md)."""
    stored = _stored(service, table_id)
    return FileResponse(stored.path, media_type="application/json", filename=stored.path.name)


@router.get("/devices", summary="List devices", responses=PAGED)
def get_devices(service: TheService, page: ThePage) -> list[DeviceView]:
    """Return devices that have latency tables, and those that work for this service, by name."""
    devices, tables = _devices(service), _tables(service)
    seen = {row.name: row.seen_at for row in devices.all()}
    counts = devices.counts()
    ids: dict[str, list[str]] = {}
    for stored_id in tables.ids():
        ids.setdefault(device_of(stored_id), []).append(stored_id)
    return [
        DeviceView(
            name=name,
            tables=ids.get(name, []),
            seen_at=seen.get(name),
            queued=counts.get(name, {}).get(WorkState.QUEUED, 0),
            taken=counts.get(name, {}).get(WorkState.TAKEN, 0),
        )
        for name in page.of_sorted(sorted({*seen, *ids}))
    ]


@router.post("/devices/{name}/work", status_code=201, summary="Ask a device to measure", responses=documented(404, 422))
async def post_work(
    service: TheService, readers: TheReaders, response: Response, name: DeviceName, request: WorkRequest
) -> WorkView:
    """Queue the measurement of a model's latency table for a device, which fetches it when it asks the next time."""
    work = await readers.run(partial(_queued, service, name, request))
    response.headers["Location"] = f"/v1/devices/{name}/work/{work.id}"
    return WorkView.of(work)


@router.get(
    "/devices/{name}/work",
    summary="Fetch work (for devices)",
    response_model=TakenWork,
    responses={204: {"description": "Nothing to do"}, **documented(422)},
)
def take_work(service: TheService, name: DeviceName) -> TakenWork | Response:
    """Give the device its oldest open work. Work of which no result comes is given out again after a time-out."""
    row = _devices(service).take(check_device(name))
    return Response(status_code=204) if row is None else TakenWork(id=row.id, work=row.work)


@router.get("/devices/{name}/work/{work_id}", summary="Show a device's work", responses=documented(404))
def get_work(service: TheService, name: DeviceName, work_id: str) -> WorkView:
    """Return one piece of work, and its result once it is done."""
    return WorkView.of(_devices(service).work(work_id, device=name))


@router.post(
    "/devices/{name}/work/{work_id}/result",
    summary="Send a result (for devices)",
    responses=documented(404, 409, 413, 422),
    dependencies=[Depends(only_fields("file"))],
)
def post_result(
    service: TheService, name: DeviceName, work_id: str, file: Annotated[UploadFile, "JSON, from the device"]
) -> WorkView:
    """Take what a device measured, or why it could not. The first result counts."""
    return WorkView.of(accept_result(_devices(service), _tables(service), name, work_id, _content(file)))


@router.get(
    "/devices/{name}/files/{sha256}",
    summary="Download a network (for devices)",
    response_class=FileResponse,
    responses=documented(404),
)
def get_file(service: TheService, name: DeviceName, sha256: str) -> FileResponse:
    """Return an ONNX file that open work of this device names."""
    path = stored_file(_devices(service), service.store, name, sha256)
    return FileResponse(path, media_type="application/octet-stream")


def _tables(service: TheService) -> TableStore:
    """Return the tables of a service."""
    return TableStore(service.settings.home)


def _devices(service: TheService) -> DeviceRecords:
    """Return the devices of a service."""
    return DeviceRecords(service.records)


def _stored(service: TheService, table_id: str) -> StoredTable:
    """Return a stored table, or say that there is none."""
    try:
        return _tables(service).get(table_id)
    except UnknownNameError as error:
        raise NotFoundError(
            f"no latency table has the id {table_id[:100]!r}; GET /v1/latency-tables lists them"
        ) from error


def _content(file: UploadFile) -> bytes:
    """Return what was uploaded."""
    content = file.file.read(MOST_RESULT_BYTES + 1)
    if len(content) > MOST_RESULT_BYTES:
        raise TooLargeError(f"expected a file of at most {MOST_RESULT_BYTES:,} bytes, found more")
    return content


def _queued(service: Service, name: str, request: WorkRequest) -> DeviceWorkRow:
    """Read a model and queue its measurement."""
    row = service.records.find(ModelRow, request.model_id)
    network = load_stored(row, service.store.path(row.sha256, row.suffix))
    options = KitOptions(
        check_device(name),
        threads=request.threads,
        precision=request.precision,
        time_budget_s=request.time_budget_s,
        networks=request.networks,
        max_ratio=request.max_ratio,
        include_residual=request.include_residual,
    )
    return queue_model(_devices(service), service.store, name, network, options, units=request.units)
