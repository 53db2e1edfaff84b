"""What a latency table is made of: times of units, the conditions they hold under, and calibrations."""

from dataclasses import dataclass, fields
from typing import Any

from autoprune.latency_tables import _validation
from autoprune.latency_tables._validation import PRECISIONS

__all__ = ["PRECISIONS", "Calibration", "Conditions", "Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Kernel time of one unit.

    Attributes:
        median_us: Median in microseconds.
        p10_us: 10th percentile in microseconds.
        p90_us: 90th percentile in microseconds.
        repeats: How many runs these are of.

    Raises:
        LatencyTableError: A time is not finite or not above 0, or the three are out of order.

    """

    median_us: float
    p10_us: float
    p90_us: float
    repeats: int

    def __post_init__(self) -> None:
        _validation.check_timing(self.median_us, self.p10_us, self.p90_us, self.repeats)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a table is valid for.

    Attributes:
        device: Name that people gave the device: letters, digits, ``.``, ``_`` and ``-``.
        machine: Kind of processor as ``platform.machine()`` says, such as ``aarch64``.
        runtime: Name and version of the runtime, such as ``onnxruntime 1.27.0``.
        precision: ``fp32`` or ``int8``.
        threads: Threads within an operator.
        batch: Images per inference.
        graph_options: How far the runtime optimized the graph: ``all``, ``extended``, ``basic`` or ``none``.

    Raises:
        LatencyTableError: A value is malformed.

    """

    device: str
    machine: str
    runtime: str
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    graph_options: str = "all"

    def __post_init__(self) -> None:
        _validation.check_conditions(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def differences(self, other: "Conditions") -> str:
        """Return in words where two differ; empty where they are alike."""
        mine, others = self.to_dict(), other.to_dict()
        return ", ".join(
            f"{name} {mine[name]!r} against {others[name]!r}" for name in mine if mine[name] != others[name]
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the time of a whole network follows from the sum of its units.

    Attributes:
        scale: Of the sum.
        offset_us: Added to the scaled sum: whole = scale * sum + offset; may be below 0.
        error: Mean absolute relative error of predictions of networks that were *not* used to fit it.
        worst: Largest of these errors.
        points: Predicted and measured microseconds of those networks.

    Raises:
        LatencyTableError: A value is not finite or out of range.

    """

    scale: float
    offset_us: float
    error: float
    worst: float
    points: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        _validation.check_calibration(self.scale, self.offset_us, self.error, self.worst, self.points)

    def whole_us(self, sum_us: float) -> float:
        """Return the predicted time of a network whose units take `sum_us` together; both in microseconds."""
        return self.scale * sum_us + self.offset_us
