"""The page of all reports: one HTML file that needs no network, no server and no other file."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

#: Nothing may be loaded from anywhere, and no text may be evaluated as code.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"

#: The style sheet and the script of all reports; the service's page uses them too.
STATIC = Path(__file__).parent / "static"


def page(title: str, body: str, figures: Mapping[str, object]) -> str:
    """Return a self-contained page, plotly.js included; it follows the reader's light or dark colour scheme.

    Args:
        title: Plain text.
        body: HTML, with an element of class ``plot`` for every figure.
        figures: Plotly figures by the id of their element; colours may be names of CSS variables.

    """
    from plotly.offline import get_plotlyjs  # imported here: reads 5 MB

    style, script = ((STATIC / name).read_text(encoding="utf-8") for name in ("report.css", "plots.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{body}</main>\n"
        f'<script type="application/json" id="figures">{script_json(figures)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{script}</script></body></html>\n"
    )


def script_json(data: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
