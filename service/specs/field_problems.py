"""What is wrong with the fields of a document, in words of this project: where, what was expected, what was found."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

#: What was expected, by pydantic's type of error; all that documents and forms of this service can bring about. Types
#: that are not here are our own, with messages of our own.
_EXPECTED: Mapping[str, str] = {
    "missing": "expected a value: it must be given",
    "json_invalid": "expected a JSON document",
    "string_type": "expected a text, in quotes",
    "string_unicode": "expected a text in valid Unicode",
    "string_too_short": "expected a text of at least {min_length:,} character(s)",
    "string_too_long": "expected a text of at most {max_length:,} characters",
    "string_pattern_mismatch": "expected a text that matches {pattern}",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:,}",
    "greater_than_equal": "expected at least {ge:,}",
    "less_than": "expected less than {lt:,}",
    "less_than_equal": "expected at most {le:,}",
    "too_short": "expected at least {min_length:,} item(s)",
    "too_long": "expected at most {max_length:,} item(s)",
    "value_error": "expected a file",  # what a form says of a text in its place
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "expected a list, as in [1, 2]"),
    **dict.fromkeys(("model_type", "model_attributes_type"), 'expected settings by name, as in {{"name": "value"}}'),
}

_NUMBERS: Mapping[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
}

_NUMBER_TEXT = {"a whole number": re.compile(r"[+-]?[0-9]{1,20}"), "a number": re.compile(r"[+-]?[0-9.]{1,40}")}


def problems_of(
    errors: Sequence[Mapping[str, Any]], kind: type[BaseModel] | None = None, *, root: tuple[str, ...] = ()
) -> list[dict[str, str]]:
    """Turn pydantic's errors into mappings of ``where``, ``expected`` and ``found``, short enough for a message.

    Args:
        errors: As ``ValidationError.errors()`` returns them.
        kind: What the document was to be; known names are taken from it.
        root: Where in the locations of `errors` the document begins.

    """
    problems = []
    for error in errors:
        location, found = _place(error, kind, root)
        expected = _expected(error, _names_beside(location, kind, root))[:1000]
        problems.append({"where": ".".join(map(str, location)), "expected": expected, "found": found})
    return problems


def _place(
    error: Mapping[str, Any], kind: type[BaseModel] | None, root: tuple[str, ...]
) -> tuple[tuple[str | int, ...], str]:
    """Return where a wrong value is, and the value; settings that contradict each other name the one to blame."""
    location, name = tuple(error["loc"]), str(error["type"])
    if location == root and kind is not None and name in kind.model_fields:
        return (*location, name), _shortened(error["input"][name])
    if name == "missing":
        return location, "nothing"
    return location, str(error["ctx"]["error"]) if name == "json_invalid" else _shortened(error.get("input"))


def _expected(error: Mapping[str, Any], known: Sequence[str]) -> str:
    """Say what was expected in place of a wrong value."""
    kind, found, context = str(error["type"]), error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        return _no_such(str(error["loc"][-1]), known)
    if kind == "literal_error":
        names = str(context["expected"])  # 'one', 'two' or 'three'
        return f"expected {names}" + _hint(found, re.findall(r"'([^']*)'", names))
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        is_quoted = isinstance(found, str) and _NUMBER_TEXT[number].fullmatch(found)
        return f"expected {number}{', without quotes' if is_quoted else ''}"
    bounds = {name: int(value) if _is_whole(value) else value for name, value in context.items()}
    return _EXPECTED[kind].format(**bounds) if kind in _EXPECTED else str(error["msg"])


def _is_whole(value: object) -> bool:
    """Tell whether a bound needs no decimals."""
    return isinstance(value, float) and value.is_integer()


def _no_such(name: str, known: Sequence[str]) -> str:
    """Say that there is no field of this name, and which there are."""
    others = f"; there are: {', '.join(known)}" if known else ""
    return f"there is no such setting{_hint(name, known) or others}"


def _hint(found: object, known: Sequence[str]) -> str:
    """Return the nearest known name as a question; nothing where none is near."""
    close = get_close_matches(found[:100], known, n=1) if isinstance(found, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _shortened(value: object) -> str:
    """Return the start of a value's text in plain ASCII."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _names_beside(location: Sequence[str | int], kind: type[BaseModel] | None, root: tuple[str, ...]) -> Sequence[str]:
    """Return the names of the fields that a document has beside this one."""
    if tuple(location[: len(root)]) != root:
        return ()
    for name in location[len(root) : -1]:
        field = kind.model_fields.get(str(name)) if kind is not None else None
        kind = None if field is None else _document(field.annotation)
    return () if kind is None else sorted(kind.model_fields)


def _document(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    """Return which kind of document a field holds, if it holds one or none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_document, get_args(annotation))), None)
