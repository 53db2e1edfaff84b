"""Which home folder the records belong to: services that share a database must share the folder too."""

import uuid
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from autoprune.service.settings import SettingsError
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import FactRow

#: File in the home folder with its id.
HOME_ID = "home.id"

_HOME, _PATH = "home_id", "home_path"


def check_home(home: Path, records: Records) -> None:
    """Make sure that `records` speak of the files in `home`; a folder and records that are new are tied together.

    Raises:
        SettingsError: They belong to another folder, whose uploads and artifacts are not here.

    """
    found = _id_of(home)
    with records.sessions() as session:
        known = session.get(FactRow, _HOME)
    if known is None:
        try:
            with records.sessions.begin() as session:
                session.add_all([FactRow(name=_HOME, value=found), FactRow(name=_PATH, value=str(home))])
        except IntegrityError:  # another service was first
            return check_home(home, records)
    elif known.value != found:
        with records.sessions() as session:
            where = session.get(FactRow, _PATH)
        raise SettingsError(
            f"expected the home folder that the database belongs to ({'' if where is None else where.value}, id "
            f"{known.value}), found {home} with the id {found}: set AUTOPRUNE_HOME to that folder, which services on "
            "several machines share, or AUTOPRUNE_DB to another database"
        )
    return None


def _id_of(home: Path) -> str:
    """Return the id of a folder; one that has none gets one, of several who give it one at once the first."""
    path = home / HOME_ID
    try:
        if not path.exists():
            fresh = home / f".{HOME_ID}.{uuid.uuid4().hex}"
            fresh.write_text(f"{uuid.uuid4().hex}\n")
            try:
                path.hardlink_to(fresh)  # unlike a rename, it does not replace
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot write to {home} ({error}); set AUTOPRUNE_HOME to a folder of yours") from error
