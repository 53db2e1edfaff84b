"""The records of devices and of the work that they fetch.

Work is queued for a device, taken by the program that runs there, and done when its result comes. Work that was taken
and of which nothing is heard is given out again, up to :data:`MOST_ATTEMPTS` times.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update

from autoprune.errors import AutopruneError
from autoprune.service.storage.database import UPLOADS, hold, insert_into
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import WorkState
from autoprune.service.storage.tables import DeviceRow, DeviceWorkRow, Json, now

#: How often work is given out before it counts as failed.
MOST_ATTEMPTS = 5

#: Added to twice the time budget of work: loading networks, sending results.
SPARE_S = 600.0


class WorkStateError(AutopruneError):
    """Work of a device has ended already."""


class DeviceRecords:
    """Devices and their work. Safe to use from several threads and processes; every method is one transaction."""

    def __init__(self, records: Records) -> None:
        """Work in the database of `records`, which stay open."""
        self._session = records.sessions

    def queue(self, device: str, work: Json, *, keep: Callable[[], object] = lambda: None) -> DeviceWorkRow:
        """Queue work for a device, known or not, after `keep` has put its files into the store.

        Nobody deletes from the store meanwhile.
        """
        row = DeviceWorkRow(id=f"wrk_{uuid.uuid4().hex[:24]}", device=device, work=work)
        with self._session.begin() as session:
            hold(session, UPLOADS)
            keep()
            known = insert_into(session, DeviceRow).values(name=device, created_at=now())
            session.execute(known.on_conflict_do_nothing())
            session.add(row)
        return row

    def take(self, device: str) -> DeviceWorkRow | None:
        """Give the oldest open work to `device`; None where there is none. The device counts as seen now."""
        moment = now()
        open_ = or_(
            DeviceWorkRow.state == WorkState.QUEUED.value,
            (DeviceWorkRow.state == WorkState.TAKEN.value) & (DeviceWorkRow.taken_until < moment),
        )
        of_device = (DeviceWorkRow.device == device) & open_
        with self._session.begin() as session:  # who has written that the device was seen takes before others do
            seen = insert_into(session, DeviceRow).values(name=device, created_at=moment, seen_at=moment)
            session.execute(seen.on_conflict_do_update(index_elements=["name"], set_={"seen_at": moment}))
            session.execute(
                update(DeviceWorkRow)
                .where(of_device, DeviceWorkRow.attempts >= MOST_ATTEMPTS)
                .values(
                    state=WorkState.FAILED.value,
                    finished_at=moment,
                    error=f"given out {MOST_ATTEMPTS} times, and no result came",
                )
            )
            oldest = select(DeviceWorkRow).where(of_device).order_by(DeviceWorkRow.number).limit(1)
            row = session.scalar(oldest.with_for_update(skip_locked=True))  # locked: its result is being written
            if row is not None:
                row.state, row.attempts = WorkState.TAKEN.value, row.attempts + 1
                row.taken_until = moment + timedelta(seconds=2 * float(row.work["time_budget_s"]) + SPARE_S)
        return row

    def finish(self, work_id: str, *, result: Json | None = None, error: str | None = None) -> DeviceWorkRow:
        """Keep the result of work, or why there is none.

        Raises:
            NotFoundError: No such id.
            WorkStateError: It has a result already, or has failed.

        """
        state = WorkState.DONE if error is None else WorkState.FAILED
        ending = (
            update(DeviceWorkRow)
            .where(
                DeviceWorkRow.id == work_id, DeviceWorkRow.state.in_([WorkState.QUEUED.value, WorkState.TAKEN.value])
            )
            .values(state=state.value, result=result, error=error, finished_at=now(), taken_until=None)
            .returning(DeviceWorkRow.id)
        )
        with self._session.begin() as session:
            ended = session.scalar(ending.execution_options(synchronize_session=False))
        row = self.work(work_id)
        if ended is None:
            self.check_open(row)
        return row

    def check_open(self, row: DeviceWorkRow) -> None:
        """Make sure that work waits for its result.

        Raises:
            WorkStateError: It is done, or has failed.

        """
        if row.state in (WorkState.DONE, WorkState.FAILED):
            raise WorkStateError(f"work {row.id} is {row.state} already; nothing is changed")

    def work(self, work_id: str, *, device: str | None = None) -> DeviceWorkRow:
        """Return one piece of work, of `device` if that is given.

        Raises:
            NotFoundError: No such id.

        """
        with self._session() as session:
            row = session.scalar(select(DeviceWorkRow).where(DeviceWorkRow.id == work_id))
        if row is None or device not in (None, row.device):
            raise NotFoundError(f"no work has the id {work_id[:100]!r}; GET /v1/devices lists devices")
        return row

    def open_work(self, device: str) -> Sequence[DeviceWorkRow]:
        """Return the work of a device that is queued or taken, oldest first."""
        query = select(DeviceWorkRow).where(
            DeviceWorkRow.device == device, DeviceWorkRow.state.in_([WorkState.QUEUED.value, WorkState.TAKEN.value])
        )
        with self._session() as session:
            return session.scalars(query.order_by(DeviceWorkRow.number)).all()

    def all(self) -> Sequence[DeviceRow]:
        """Return all devices by name."""
        with self._session() as session:
            return session.scalars(select(DeviceRow).order_by(DeviceRow.name)).all()

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return how much work of each state each device has."""
        query = select(DeviceWorkRow.device, DeviceWorkRow.state, func.count()).group_by(
            DeviceWorkRow.device, DeviceWorkRow.state
        )
        found: dict[str, dict[str, int]] = {}
        with self._session() as session:
            for device, state, count in session.execute(query):
                found.setdefault(device, {})[state] = count
        return found
