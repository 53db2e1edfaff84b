"""Templates turned into answers: what may run in a page, and errors as pages."""

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from autoprune.errors import AutopruneError
from autoprune.service.pages.static_files import address
from autoprune.service.reports.page import script_json
from autoprune.service.rest.problems import status_of
from autoprune.service.results.wording import QUANTITY_LABELS, duration

#: Everything comes from this service, scripts as files only; styles may be inline, since plotly.js writes its own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {"static": address, "labels": QUANTITY_LABELS}
_TEMPLATES.filters["duration"] = duration


def rendered(template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any) -> Response:  # noqa: ANN401 - whatever a template shows
    """Return a page or a part of one; all text is escaped but what is marked as HTML by :func:`trusted`."""
    text = _TEMPLATES.get_template(template).render(context)
    return HTMLResponse(text, status, {**_HEADERS, **(headers or {})})


def trusted(html: str) -> Markup:
    """Mark sections of a report as HTML: they escape what came from outside themselves."""
    return Markup(html)  # noqa: S704 - see above


def figures_json(figures: Mapping[str, object]) -> Markup:
    """Return figures as JSON that may stand in a script element."""
    return Markup(script_json(figures))  # noqa: S704 - cannot end its element


class PageRoute(APIRoute):
    """A route that answers errors with a page, where REST answers with problem details."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers requests."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except AutopruneError as error:
                return _error_page(status_of(error), str(error))
            except RequestValidationError as error:
                return _error_page(422, "; ".join(str(each["msg"]) for each in error.errors()))
            except HTTPException as error:
                return _error_page(error.status_code, str(error.detail))

        return answer


def too_large_page(detail: str) -> Response:
    """Say that a form with its files is too large."""
    return _error_page(413, detail)


def _error_page(status: int, detail: str) -> Response:
    """Say what is wrong."""
    return rendered("error.html", status=status, title=HTTPStatus(status).phrase, detail=detail)
