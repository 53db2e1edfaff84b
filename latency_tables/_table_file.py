"""The file of a latency table: JSON with a hash of its content, so that a cut or altered file is noticed."""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.unit import Unit

FORMAT = "autoprune-latency-table"
VERSION = 1
MOST_BYTES = 64 * 2**20

_CONDITIONS = ("device", "machine", "runtime", "precision", "threads", "batch", "graph_options")
_CALIBRATION = ("scale", "offset_us", "error", "worst", "points")
_SECTIONS = ("conditions", "units", "calibrations", "provenance")
_TIMES = ("c_in", "c_out", "median_us", "p10_us", "p90_us", "repeats")

Times = tuple[float, float, float, int]


def content(
    conditions: Mapping[str, Any],
    entries: Mapping[Unit, Times],
    calibrations: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of a file: units of one shape together, everything in order."""
    shapes: dict[Unit, list[list[float]]] = {}
    for unit in sorted(entries):
        shapes.setdefault(unit.shape, []).append([unit.c_in, unit.c_out, *entries[unit]])
    return {
        "conditions": dict(conditions),
        "units": [{"unit": _shape_data(shape), "times": times} for shape, times in shapes.items()],
        "calibrations": {
            key: {**data, "points": [list(point) for point in data["points"]]} for key, data in calibrations.items()
        },
        "provenance": dict(provenance),
    }


def text_of(content: Mapping[str, Any]) -> str:
    """Return the text of a file: one line per unit, small and still readable."""
    head: dict[str, Any] = {"format": FORMAT, "version": VERSION, "sha256": sha256_of(content)}
    head |= {name: content[name] for name in ("conditions", "provenance", "calibrations")}
    lines = [f" {json.dumps(name)}: {_compact(value)}" for name, value in head.items()]
    units = ",\n".join(f"  {_compact(entry)}" for entry in content["units"])
    return "{\n" + ",\n".join([*lines, f' "units": [\n{units}\n ]']) + "\n}\n"


def sha256_of(content: Mapping[str, Any]) -> str:
    """Return the hash of a content: of its JSON with sorted names and without spaces."""
    return hashlib.sha256(_compact(content).encode("ascii")).hexdigest()


def read(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        LatencyTableError: It is missing, no file, not readable or too large.

    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise LatencyTableError(f"{path}: expected a file of at most {MOST_BYTES:,} bytes, found {size:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LatencyTableError(f"{path}: expected a latency table, found no readable file ({reason})") from error


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        LatencyTableError: The place cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LatencyTableError(f"{path}: the table cannot be written ({error.strerror or error})") from error


def content_of(text: str | bytes) -> dict[str, Any]:
    """Return the content of a file's text, its hash and the fields of all its parts checked.

    Raises:
        LatencyTableError: It is not such a text, of another version, cut off or altered.

    """
    if len(text) > MOST_BYTES:
        raise LatencyTableError(f"expected at most {MOST_BYTES:,} bytes, found {len(text):,}")
    data = _parsed(text)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise LatencyTableError(f"expected a latency table (format {FORMAT!r}), found {_short(found)}")
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        raise LatencyTableError(
            f"expected version {VERSION} of the format, found {_short(data.get('version'))}: "
            "measure again, or use the autoprune that wrote it"
        )
    _check_fields("the table", data, ("format", "version", "sha256", *_SECTIONS))
    content = {name: data[name] for name in _SECTIONS}
    found_hash = sha256_of(content)
    if data["sha256"] != found_hash:
        raise LatencyTableError(
            f"the table was altered after it was written: its content has the sha256 {found_hash[:16]}..., it says "
            f"{_short(data['sha256'])}; measure again, or get the original file"
        )
    _check_sections(content)
    return content


def entries_of(content: Mapping[str, Any]) -> Iterator[tuple[Unit, Times]]:
    """Yield the units of a checked content with their times.

    Raises:
        LatencyTableError: A unit is malformed or there twice.

    """
    seen: set[Unit] = set()
    for entry in content["units"]:
        shape = Unit.from_dict({**entry["unit"], "c_in": 0, "c_out": 0})
        for row in entry["times"]:
            if not isinstance(row, list) or len(row) != len(_TIMES) or not all(_is_count(c) for c in row[:2]):
                raise LatencyTableError(f"{shape}: expected times as {list(_TIMES)}, found {_short(row)}")
            unit = shape.with_channels(row[0], row[1])
            if unit in seen:
                raise LatencyTableError(f"{unit}: there twice")
            seen.add(unit)
            yield unit, (row[2], row[3], row[4], row[5])


def _check_sections(content: Mapping[str, Any]) -> None:
    """Raise LatencyTableError unless all parts of a content have their fields."""
    _check_fields("conditions", content["conditions"], _CONDITIONS)
    for name in ("calibrations", "provenance"):
        if not isinstance(content[name], dict):
            raise LatencyTableError(f"{name}: expected an object, found {type(content[name]).__name__}")
    for key, data in content["calibrations"].items():
        _check_fields(f"calibration {_short(key)}", data, _CALIBRATION)
        points = data["points"]
        if not isinstance(points, list) or not all(isinstance(each, list) and len(each) == 2 for each in points):
            raise LatencyTableError(f"calibration {_short(key)}: points: expected pairs of numbers")
    if not isinstance(content["units"], list):
        raise LatencyTableError(f"units: expected a list, found {type(content['units']).__name__}")
    for entry in content["units"]:
        _check_fields("units", entry, ("unit", "times"))
        if not isinstance(entry["unit"], dict) or not isinstance(entry["times"], list):
            raise LatencyTableError("units: expected objects of a unit (an object) and its times (a list)")
        if {"c_in", "c_out"} & set(entry["unit"]):
            raise LatencyTableError("units: channel counts belong to the times, found them in the unit")


def _check_fields(where: str, data: object, names: tuple[str, ...]) -> None:
    """Raise LatencyTableError unless `data` is an object with exactly these fields."""
    if not isinstance(data, dict):
        raise LatencyTableError(f"{where}: expected an object, found {type(data).__name__}")
    missing, unknown = sorted(set(names) - set(data)), sorted(set(data) - set(names))
    if missing or unknown:
        found = [f"without {', '.join(missing)}"] * bool(missing)
        found += [f"with unknown {_short(', '.join(unknown))}"] * bool(unknown)
        raise LatencyTableError(f"{where}: expected the fields {', '.join(names)}; found it {' and '.join(found)}")


def _parsed(text: str | bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Read JSON that has no NaN, no infinity and no name twice."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_constant=_refuse_constant, parse_float=_number, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise LatencyTableError(
            f"expected JSON, found a file that is cut off or damaged ({str(error)[:200]}): copy or measure it again"
        ) from error


def _refuse_constant(name: str) -> Any:  # noqa: ANN401 - raises always
    """Refuse NaN and infinities, which are no JSON."""
    raise LatencyTableError(f"expected finite numbers, found {name}")


def _number(text: str) -> float:
    """Read a number that a float can hold."""
    value = float(text)
    if math.isinf(value):
        raise LatencyTableError(f"expected finite numbers, found {text[:100]}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, every name once."""
    data = dict(pairs)
    if len(data) != len(pairs):
        twice = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise LatencyTableError(f"expected every name once, found {_short(twice)} twice")
    return data


def _shape_data(shape: Unit) -> dict[str, Any]:
    """Return a unit's data without channel counts."""
    return {name: value for name, value in shape.to_dict().items() if name not in ("c_in", "c_out")}


def _compact(data: object) -> str:
    """Return canonical JSON."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _is_count(value: object) -> bool:
    """Tell whether `value` is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _short(value: object) -> str:
    """Return the beginning of a value's text."""
    return repr(value)[:100]
