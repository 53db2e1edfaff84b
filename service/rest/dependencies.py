"""What routes share: the service they work with, strict forms, and the errors they document."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError

from autoprune.service.engine.service import Service
from autoprune.service.rest.problems import MEDIA_TYPE, Problem
from autoprune.service.storage.quota import Quota
from autoprune.service.storage.tables import KeyRow, KeyScope


def _service(request: Request) -> Service:
    """Return the service of the application that got the request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


TheService = Annotated[Service, Depends(_service)]


def _quota(request: Request, service: TheService) -> Quota:
    """Return how much of the queue the sender of the request may fill; the scope admin has no quota."""
    key = getattr(request.state, "key", None)
    if key is None:
        return Quota(queued_jobs=service.settings.queued_jobs)
    assert isinstance(key, KeyRow)
    return Quota(key.id, None if key.allows(KeyScope.ADMIN) else service.settings.queued_jobs)


TheQuota = Annotated[Quota, Depends(_quota)]


def only_fields(*names: str) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that refuses form fields other than `names`, and the same one twice."""

    async def check(request: Request) -> None:
        form = await request.form()  # read already: the same form again
        check_fields([name for name, _ in form.multi_items()], names)

    return check


def check_fields(found: list[str], names: tuple[str, ...]) -> None:
    """Raise RequestValidationError unless all `found` form fields are among `names`, each once."""
    errors = [
        {
            "type": "form_field",
            "loc": ("body", name[:100]),
            "msg": f"expected one of {', '.join(names)}, each once",
        }
        for index, name in enumerate(found)
        if name not in names or name in found[:index]
    ]
    if errors:
        raise RequestValidationError([{**error, "input": error["loc"][1]} for error in errors])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of these errors."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = schema.pop("$defs")["FieldProblem"]  # a reference would be to nothing
    content = {MEDIA_TYPE: {"schema": schema}}
    return {status: {"description": "Problem details", "content": content} for status in statuses}
