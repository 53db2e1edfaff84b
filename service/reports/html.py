"""Pieces of HTML. Arguments called text are escaped here; those called cells, rows or body are HTML already."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote


def facts(facts: Mapping[str, object]) -> str:
    """Write nested JSON data as a description list's items."""
    return "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{fact(value)}</dd>" for key, value in facts.items()
    )


def fact(value: object) -> str:
    """Write one JSON value for people."""
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(key))}: {fact(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "<br>".join(fact(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = escape("-" if value is None else str(value))
    return f"<code>{text}</code>" if len(text) == 64 and text.isalnum() else text


def name_list(names: Sequence[str]) -> str:
    """List layer names."""
    return ", ".join(f"<code>{escape(name)}</code>" for name in names) or "nothing"


def link(name: str, folder: str = ".") -> str:
    """Link to a file in `folder`, an address without the last slash: beside the page."""
    return f'<a href="{escape(folder)}/{escape(quote(name))}"><code>{escape(name)}</code></a>'


def card(what: str, value: str, comment: str) -> str:
    """One figure of the headline."""
    return (
        f'<div class="card"><div class="what">{escape(what)}</div><div class="value">{escape(value)}</div>'
        f'<div class="from">{escape(comment)}</div></div>'
    )


def section(heading: str, body: str) -> str:
    """A section; `body` is HTML already."""
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], note: str, *, kinds: Sequence[str] = ()) -> str:
    """A table that scrolls sideways on narrow screens, its explanation above it.

    The first cell heads its row; columns whose last cell is a figure are right-aligned. Cells are HTML, `note` is text.

    Args:
        head: Column headings.
        rows: Cells of every row, as many as headings.
        note: What the table shows.
        kinds: CSS class of every row; none for plain rows.

    """
    figures = [bool(rows) and _is_figure(rows[-1][column]) for column in range(len(head))]
    headings = "".join(
        f'<th scope="col"{_align(figure)}>{text}</th>' for text, figure in zip(head, figures, strict=True)
    )
    body = "".join(_row(cells, figures, kind) for cells, kind in zip(rows, kinds or [""] * len(rows), strict=True))
    return (
        f'<p class="dim">{escape(note)}</p><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], figures: Sequence[bool], kind: str) -> str:
    """One row of a table."""
    first, *rest = cells
    columns = "".join(f"<td{_align(figure)}>{text}</td>" for text, figure in zip(rest, figures[1:], strict=True))
    attribute = f' class="{kind}"' if kind else ""
    return f'<tr{attribute}><th scope="row">{first}</th>{columns}</tr>'


def _is_figure(cell: str) -> bool:
    """Tell whether a cell is a number, or the dash that stands for a missing one."""
    return cell[:1].isdigit() or cell == "-"


def _align(figure: bool) -> str:
    """Return the class of cells that hold figures."""
    return ' class="n"' if figure else ""
