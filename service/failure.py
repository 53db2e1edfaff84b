"""How an error is called where it is shown: in problem details and in the records of jobs."""

import re
from pathlib import Path

from autoprune.errors import AutopruneError


class NamedError(AutopruneError):
    """An error about an uploaded file, which speaks of the file by the name that its owner knows."""

    def __init__(self, cause: AutopruneError, path: Path, name: str) -> None:
        """Repeat the message of `cause`, with `name` in place of `path`, of its last part, of its stem."""
        message = str(cause)
        for written in (str(path), path.name, path.stem):
            message = message.replace(written, name)
        super().__init__(message)
        self.kind = kind_of(cause)


def kind_of(error: AutopruneError) -> str:
    """Return the kind of an error as in problem types: ``infeasible-budget-error``."""
    if isinstance(error, NamedError):
        return error.kind
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
