"""What values of a latency table can be; every refusal says what was expected and what was found."""

import math
import sys
from collections.abc import Mapping, Sequence

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.unit import Unit

#: An hour: no kernel takes that long.
MOST_US = 3.6e9

MOST_CHANNELS = 2**24
MOST_ENTRIES = 1_000_000
MOST_CALIBRATIONS = 10_000
MOST_POINTS = 10_000
MOST_PROVENANCE = 100
MOST_TEXT = 500
MOST_COUNT = 2**53

PRECISIONS = ("fp32", "int8")
GRAPH_OPTIONS = ("all", "extended", "basic", "none")


def check_timing(median_us: float, p10_us: float, p90_us: float, repeats: object) -> None:
    """Raise LatencyTableError unless these can be times of one unit."""
    for name, value in (("median_us", median_us), ("p10_us", p10_us), ("p90_us", p90_us)):
        if not is_number(value) or not 0 < float(value) <= MOST_US:
            raise LatencyTableError(f"{name}: expected microseconds above 0, found {value!r}")
    if not p10_us <= median_us <= p90_us:
        raise LatencyTableError(
            f"expected p10 <= median <= p90, found p10 {p10_us}, median {median_us}, p90 {p90_us} microseconds"
        )
    check_count("repeats", repeats, MOST_COUNT)


def check_conditions(data: Mapping[str, object]) -> None:
    """Raise LatencyTableError unless these can be the conditions of a table."""
    check_device(data["device"])
    for name in ("machine", "runtime"):
        check_text(name, data[name])
    for name, known in (("precision", PRECISIONS), ("graph_options", GRAPH_OPTIONS)):
        if data[name] not in known:
            raise LatencyTableError(f"{name}: expected one of {', '.join(known)}; found {data[name]!r}")
    check_count("threads", data["threads"], 4096)
    check_count("batch", data["batch"], 65536)


def check_calibration(
    scale: float, offset_us: float, error: float, worst: float, points: Sequence[Sequence[float]]
) -> None:
    """Raise LatencyTableError unless these can be a calibration."""
    for name, value in (("scale", scale), ("offset_us", offset_us), ("error", error), ("worst", worst)):
        if not is_number(value) or abs(float(value)) > MOST_US:
            raise LatencyTableError(f"calibration: {name}: expected a finite number, found {value!r}")
    if not scale > 0:
        raise LatencyTableError(f"calibration: scale: expected a number above 0, found {scale!r}")
    if not 0 <= error <= worst:
        raise LatencyTableError(f"calibration: expected 0 <= error <= worst, found error {error}, worst {worst}")
    if not isinstance(points, tuple) or len(points) > MOST_POINTS:
        raise LatencyTableError(f"calibration: points: expected at most {MOST_POINTS} pairs")
    for point in points:
        if len(point) != 2 or not all(is_number(value) and 0 < value <= MOST_US for value in point):
            raise LatencyTableError(
                f"calibration: points: expected predicted and measured microseconds above 0, found {point!r}"
            )


def check_entries(entries: Mapping[Unit, object], one_width: tuple[str, ...]) -> None:
    """Raise LatencyTableError unless these can be the units of a table."""
    if not 1 <= len(entries) <= MOST_ENTRIES:
        raise LatencyTableError(f"expected 1 to {MOST_ENTRIES:,} timed units, found {len(entries):,}")
    for unit in entries:
        if not (1 <= unit.c_in <= MOST_CHANNELS and 1 <= unit.c_out <= MOST_CHANNELS):
            raise LatencyTableError(f"{unit}: expected 1 to {MOST_CHANNELS} channels")
        if unit.op in one_width and unit.c_in != unit.c_out:
            raise LatencyTableError(f"{unit}: as many channels leave a {unit.op} unit as enter it")
        if unit.groups < 1 or unit.c_in % unit.groups or unit.c_out % unit.groups:
            raise LatencyTableError(f"{unit}: {unit.groups} groups do not divide the channels")
        check_geometry(unit)


def check_geometry(unit: Unit) -> None:
    """Raise LatencyTableError unless a unit's kernel, stride and image can be."""
    sizes = (*unit.kernel, *unit.padding)
    least_one = (*unit.stride, *unit.dilation, *unit.input_hw)
    if not all(0 <= size <= 2**16 for size in sizes) or not all(1 <= size <= 2**16 for size in least_one):
        raise LatencyTableError(f"{unit}: kernel, stride, dilation, padding or image size out of range")


def check_names(calibrations: Mapping[str, object], provenance: Mapping[str, object]) -> None:
    """Raise LatencyTableError unless fingerprints and provenance are short texts and finite numbers."""
    if len(calibrations) > MOST_CALIBRATIONS or len(provenance) > MOST_PROVENANCE:
        raise LatencyTableError(
            f"expected at most {MOST_CALIBRATIONS:,} calibrations and {MOST_PROVENANCE} lines of provenance, found "
            f"{len(calibrations):,} and {len(provenance):,}"
        )
    for key in calibrations:
        check_text("fingerprint of a calibration", key)
    for key, value in provenance.items():
        check_text("name in the provenance", key)
        if isinstance(value, str):
            check_text(f"provenance: {key}", value)
        elif not is_number(value):
            raise LatencyTableError(f"provenance: {key}: expected a text or a finite number, found {value!r}")


def check_count(name: str, value: object, most: int) -> None:
    """Raise LatencyTableError unless `value` is a whole number from 1 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise LatencyTableError(f"{name}: expected a whole number from 1 to {most}, found {value!r}")


def check_text(name: str, value: object) -> None:
    """Raise LatencyTableError unless `value` is a short printable text."""
    if not isinstance(value, str) or not 0 < len(value) <= MOST_TEXT or not value.isprintable():
        shown = value[:100] if isinstance(value, str) else value
        raise LatencyTableError(f"{name}: expected 1 to {MOST_TEXT} printable characters, found {shown!r}")


def is_number(value: object) -> bool:
    """Tell whether `value` is a finite number that a float can hold; JSON has whole numbers of any length."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max if isinstance(value, int) else math.isfinite(value)
