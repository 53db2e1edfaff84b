"""What REST and the command line show of devices, their latency tables and their work."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autoprune.latency_tables.table import LatencyTable
from autoprune.service.devices.tables import StoredTable
from autoprune.service.storage.states import WorkState
from autoprune.service.storage.tables import DeviceWorkRow


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CalibrationView(_View):
    """How predictions of whole networks relate to measurements."""

    scale: float = Field(description="Of the sum of units.", examples=[1.02])
    offset_us: float = Field(examples=[12.5])
    error: float = Field(description="Mean absolute relative error on networks not fitted to.", examples=[0.021])
    worst: float = Field(examples=[0.048])
    networks: int = Field(description="Networks measured whole.", examples=[10])


class LatencyTableView(_View):
    """A stored latency table: what it is valid for, and how good it is."""

    id: str = Field(description="Device and conditions.", examples=["pixel-8.3f2a9c01d4e5"])
    sha256: str = Field(description="Hash of the content.")
    device: str = Field(examples=["pixel-8"])
    machine: str = Field(examples=["aarch64"])
    runtime: str = Field(examples=["onnxruntime 1.27.0"])
    precision: str = Field(examples=["fp32"])
    threads: int
    batch: int
    graph_options: str = Field(examples=["all"])
    units: int = Field(description="Timed units, each with its channel counts.", examples=[2412])
    shapes: int = Field(description="Kinds of units.", examples=[27])
    calibrations: dict[str, CalibrationView] = Field(description="By structure of the network.")
    provenance: dict[str, str | float]

    @property
    def measured_at(self) -> str | None:
        """When it was measured, if it says so."""
        found = self.provenance.get("measured_at")
        return None if found is None else str(found)

    @classmethod
    def of(cls, stored: StoredTable) -> "LatencyTableView":
        """Show a stored table."""
        return cls.of_table(stored.id, stored.table)

    @classmethod
    def of_table(cls, table_id: str, table: LatencyTable) -> "LatencyTableView":
        """Show a table that has this id."""
        return cls(
            id=table_id,
            sha256=table.sha256,
            **table.conditions.to_dict(),
            units=len(table.entries),
            shapes=len(table.shapes),
            calibrations={
                key: CalibrationView(
                    scale=each.scale,
                    offset_us=each.offset_us,
                    error=each.error,
                    worst=each.worst,
                    networks=len(each.points),
                )
                for key, each in table.calibrations.items()
            },
            provenance=dict(table.provenance),
        )


class DeviceView(_View):
    """A device that has latency tables, or that works for this service."""

    name: str = Field(examples=["pixel-8"])
    tables: list[str] = Field(description="Ids of its latency tables.")
    seen_at: datetime | None = Field(description="When it last asked for work.")
    queued: int = Field(description="Pieces of work that nobody has fetched.")
    taken: int = Field(description="Pieces of work that it is measuring.")


class WorkView(_View):
    """A piece of work of a device."""

    id: str = Field(examples=["wrk_5f1c0e1b8a7d4c7e9b1f2a3d"])
    device: str = Field(examples=["pixel-8"])
    state: WorkState
    attempts: int = Field(description="How often it was given out.")
    units: int = Field(description="Kinds of units to be profiled.")
    networks: list[str] = Field(description="Hashes of the ONNX files to be timed whole.")
    result: dict[str, Any] | None = Field(description="What was measured; null until it is done.")
    error: str | None = Field(description="Why the device could not measure it.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: DeviceWorkRow) -> "WorkView":
        """Show a record."""
        return cls(
            id=row.id,
            device=row.device,
            state=WorkState(row.state),
            attempts=row.attempts,
            units=len(row.work["grids"]),
            networks=[network["sha256"] for network in row.work["networks"]],
            result=row.result,
            error=row.error,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )


class TakenWork(_View):
    """Work that is given to a device."""

    id: str = Field(examples=["wrk_5f1c0e1b8a7d4c7e9b1f2a3d"])
    work: dict[str, Any] = Field(description="What to measure; networks lie under files/{sha256} of the device.")
