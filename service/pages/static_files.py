"""The files that pages load, all of them from this machine."""

from pathlib import Path

import plotly
from fastapi import APIRouter
from starlette.responses import FileResponse

from autoprune import __version__
from autoprune.service.reports.page import STATIC
from autoprune.service.storage.errors import NotFoundError

_OWN = Path(__file__).parent / "static"

_FILES = {
    "htmx.min.js": _OWN / "htmx.min.js",
    "page.css": _OWN / "page.css",
    "page.js": _OWN / "page.js",
    "plotly.min.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
    "plots.js": STATIC / "plots.js",
    "report.css": STATIC / "report.css",
}

router = APIRouter(prefix="/static", include_in_schema=False)


def address(name: str) -> str:
    """Return the address of a file, another one for every version of it."""
    assert name in _FILES, name
    return f"/static/{name}?v={__version__}-{plotly.__version__}"


@router.get("/{name}")
def get_file(name: str) -> FileResponse:
    """Return one file."""
    if name not in _FILES:
        raise NotFoundError(f"expected one of {', '.join(_FILES)}, found {name[:100]!r}")
    headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
    return FileResponse(_FILES[name], headers=headers)
