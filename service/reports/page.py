"""The page of all reports: one HTML file that needs no network, no server and no other file."""

import json
from collections.abc import Mapping
from html import escape

#: Nothing may be loaded from anywhere, and no text may be evaluated as code.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--text:#1c2330;--muted:#5b6577;--grid:#e0e4ea;--head:#eef1f5;
--good:#0a7a4b;--warn-bg:#fff6e0;--warn-line:#d99a00;--accent:#1f5fd0;
--p0:#1f6fd6;--p1:#d9541e;--p2:#0f8f68;--p3:#9a3fc0;--p4:#b07a00;--p5:#c2306e}
@media (prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1a1f28;--text:#e6e9ef;--muted:#9aa5b8;--grid:#303846;
--head:#232a36;--good:#4fd39a;--warn-bg:#332a12;--warn-line:#d9a520;--accent:#7fb0ff;
--p0:#62a8ff;--p1:#ff8f5c;--p2:#3fcf9f;--p3:#cf8cf0;--p4:#e3b341;--p5:#ff7fb0}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:1.65rem;line-height:1.25;margin:.2em 0 .1em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .5em}
h3{font-size:1rem;margin:1.4em 0 .4em}
p{margin:.5em 0}
.lead{color:var(--muted);margin-bottom:1.2em;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:18px 20px;margin:0 0 18px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:14px;margin:0 0 18px}
.card{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:14px 16px}
.card .what{color:var(--muted);font-size:.85rem}
.card .value{font-size:1.55rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.card .from{color:var(--muted);font-size:.9rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top}
thead th{background:var(--head);font-weight:600;vertical-align:bottom;white-space:normal;min-width:4.5em}
tbody th{font-weight:500;white-space:nowrap}
.note{display:inline-block;min-width:12em}
p.dim{font-size:.92rem}
td.n{white-space:nowrap}.n{text-align:right}
tr.best td,tr.best th{background:color-mix(in srgb,var(--good) 10%,transparent)}
tr.unpruned td,tr.unpruned th,.dim{color:var(--muted)}
.tag{display:inline-block;font-size:.75rem;font-weight:600;color:var(--good);border:1px solid currentColor;
border-radius:99px;padding:0 7px;margin-left:6px;white-space:nowrap}
.verdict{border-left:4px solid var(--accent);padding:2px 0 2px 12px;margin:0 0 10px}
.warning{background:var(--warn-bg);border-left:4px solid var(--warn-line);border-radius:4px;padding:8px 12px;
margin:8px 0}
.plot{width:100%;height:400px}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86rem}
code{overflow-wrap:anywhere}pre code{overflow-wrap:normal}
pre{background:var(--head);border-radius:8px;padding:12px 14px;overflow-x:auto;margin:.5em 0}
dl{display:grid;grid-template-columns:minmax(130px,max-content) 1fr;gap:4px 18px;margin:.4em 0}
dt{color:var(--muted)} dd{margin:0;overflow-wrap:anywhere;min-width:0}
details{margin:.7em 0} summary{cursor:pointer;font-weight:600}
a{color:var(--accent)}
footer{color:var(--muted);font-size:.85rem;margin-top:24px}
@media (max-width:640px){main{padding:14px 10px 40px}section{padding:14px 12px}h1{font-size:1.35rem}
.cards{grid-template-columns:1fr 1fr;gap:8px}.card{padding:10px 12px}.card .value{font-size:1.2rem}
.plot{height:340px}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5em}th,td{padding:5px 7px}}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""

_SCRIPT = """
(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  function paint(value, style) {
    if (typeof value === "string") {
      return value.slice(0, 2) === "--" ? style.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) { return value.map(function (item) { return paint(item, style); }); }
    if (value && typeof value === "object") {
      var out = {};
      Object.keys(value).forEach(function (key) { out[key] = paint(value[key], style); });
      return out;
    }
    return value;
  }
  function draw() {
    var style = getComputedStyle(document.documentElement);
    Object.keys(figures).forEach(function (id) {
      var figure = paint(figures[id], style);
      Plotly.react(id, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
    });
  }
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
"""


def page(title: str, body: str, figures: Mapping[str, object]) -> str:
    """Return a self-contained page, plotly.js included; it follows the reader's light or dark colour scheme.

    Args:
        title: Plain text.
        body: HTML, with an element of class ``plot`` for every figure.
        figures: Plotly figures by the id of their element; colours may be names of CSS variables.

    """
    from plotly.offline import get_plotlyjs  # imported here: reads 5 MB

    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{body}</main>\n"
        f'<script type="application/json" id="figures">{_script_json(figures)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _script_json(data: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
