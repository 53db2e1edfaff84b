"""Every error of the API as problem details (RFC 9457): what was expected, what was found, what to do."""

import errno
import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DatabaseError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from autoprune.errors import AutopruneError
from autoprune.service.failure import kind_of
from autoprune.service.specs.field_problems import problems_of
from autoprune.service.specs.reading import SpecError
from autoprune.service.storage.device_records import WorkStateError
from autoprune.service.storage.errors import JobStateError, NotFoundError
from autoprune.service.storage.file_store import StorageError, TooLargeError
from autoprune.service.storage.quota import QuotaError

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)

#: What is raised while the records cannot be used; the last where all connections are busy for too long.
RECORDS_UNAVAILABLE = (DatabaseError, InterfaceError, PoolTimeoutError)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_STATUS: Mapping[type[AutopruneError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    JobStateError: HTTPStatus.CONFLICT,
    WorkStateError: HTTPStatus.CONFLICT,
    QuotaError: HTTPStatus.TOO_MANY_REQUESTS,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    StorageError: HTTPStatus.INSUFFICIENT_STORAGE,
}


class FieldProblem(BaseModel):
    """One wrong value of a request."""

    where: str = Field(examples=["body.max_ratio"])
    expected: str = Field(examples=["expected less than 1"])
    found: str = Field(examples=["1.5"])


class Problem(BaseModel):
    """Problem details as in RFC 9457."""

    type: str = Field(examples=["urn:autoprune:problem:infeasible-budget-error"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(
        examples=["budget macs <= 1% cannot be reached: ..., the smallest reachable value is 1,000 (2%)"]
    )
    instance: str | None = Field(default=None, examples=["/v1/jobs"])
    errors: list[FieldProblem] = Field(default_factory=list)


def problem_response(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    instance: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return one problem; the text is ASCII, so that no input can make it unprintable."""
    content: dict[str, Any] = {
        "type": f"urn:autoprune:problem:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if instance is not None:
        content["instance"] = instance
    if errors:
        content["errors"] = list(errors)
    return Response(json.dumps(content), status, dict(headers or {}), media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with problem details."""
    app.add_exception_handler(AutopruneError, _on_user_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    for error in RECORDS_UNAVAILABLE:
        app.add_exception_handler(error, _on_database_error)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(Exception, _on_defect)


def status_of(error: AutopruneError) -> HTTPStatus:
    """Return the status that an error of the user is answered with."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), HTTPStatus.UNPROCESSABLE_ENTITY)


async def _on_user_error(request: Request, error: Exception) -> Response:
    """Answer 4xx for what the user can change."""
    assert isinstance(error, AutopruneError)
    status = status_of(error)
    errors = error.problems if isinstance(error, SpecError) else ()
    return problem_response(status, str(error), kind=kind_of(error), instance=request.url.path, errors=errors)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer 422 naming every wrong value."""
    assert isinstance(error, RequestValidationError)
    errors = problems_of(error.errors(), _document_of(request), root=("body",))
    detail = "; ".join(f"{e['where']}: {e['expected']} (found {e['found']})" for e in errors[:5])
    return problem_response(422, detail, kind="invalid-request", instance=request.url.path, errors=errors)


def _document_of(request: Request) -> type[BaseModel] | None:
    """Return which kind of document the route of a request takes, if it takes one."""
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = field and field.field_info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown paths, wrong methods, broken forms."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:  # while a form was received
        return _disk_full(request, error.__cause__)
    detail = error.detail if isinstance(error.detail, str) else HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
    return problem_response(error.status_code, detail, instance=request.url.path, headers=headers)


def _methods(request: Request) -> list[str]:
    """Return the methods that the path of a request has; the framework names those of one route alone."""
    scopes = [{**request.scope, "method": method} for method in ("DELETE", "GET", "PATCH", "POST", "PUT")]
    return [
        scope["method"]
        for scope in scopes
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]


def records_unavailable(path: str, error: Exception) -> Response:
    """Return the answer to a request for `path` while the records cannot be used: 503; the log says why."""
    _log.error("the records cannot be used", exc_info=error)
    detail = "the service's records cannot be used at the moment (not there, full, locked or damaged); try again later"
    return problem_response(503, detail, kind="records-unavailable", instance=path, headers={"Retry-After": "5"})


async def _on_database_error(request: Request, error: Exception) -> Response:
    """Answer 503 while the records cannot be used."""
    return records_unavailable(request.url.path, error)


async def _on_os_error(request: Request, error: Exception) -> Response:
    """Answer 507 where a disk is full, and else as to any defect."""
    assert isinstance(error, OSError)
    return _disk_full(request, error) if error.errno in _DISK_FULL else await _on_defect(request, error)


def _disk_full(request: Request, error: OSError) -> Response:
    """Return the answer to what cannot be written down."""
    _log.error("a disk of the service cannot be written", exc_info=error)
    detail = f"the service cannot write to its disk ({error.strerror}); free some space there and send it again"
    return problem_response(507, detail, kind="storage-error", instance=request.url.path)


async def _on_defect(request: Request, error: Exception) -> Response:
    """Answer 500 without details, which are in the log."""
    request_id = getattr(request.state, "request_id", None)
    extra = {"request_id": request_id, "method": request.method, "path": request.url.path}
    _log.error("defect while answering a request", exc_info=error, extra=extra)
    detail = "a defect of the service, not of your request; its log has the details"
    headers = {"Connection": "close"}  # the server closes it; a client that used it again would find it reset
    if request_id is not None:
        headers["X-Request-ID"] = request_id  # answered outside all middleware
    return problem_response(500, detail, kind="defect", instance=request.url.path, headers=headers)
