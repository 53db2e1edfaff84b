"""Whether a service can take jobs and run them."""

import tempfile

from sqlalchemy.exc import SQLAlchemyError

from autoprune.service.engine.service import Service
from autoprune.service.storage.database import reason

_PAGE_BYTES = 4096


def obstacles(service: Service) -> list[str]:
    """Return why `service` cannot work, one sentence each; nothing where it can."""
    found = []
    try:
        service.records.check()
    except SQLAlchemyError as error:
        found.append(f"the records cannot be read ({reason(error)})")
    for folder in service.settings.folders:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(_PAGE_BYTES))  # on a full disk an empty file can be made
        except OSError as error:
            found.append(f"the folder {folder.name!r} cannot be written ({error.strerror})")
    if service.runners is not None and not service.runners.is_alive:
        found.append("a runner of jobs has ended; start the service again")
    return found
