"""An evaluator on its way to workers of Dask, unpickled where it is needed. Imports Dask."""

import asyncio
from typing import Any

from distributed import Worker, get_worker
from distributed.protocol import pickle

from autoprune.errors import ClusterError
from autoprune.evaluation.plan_evaluator import PlanEvaluator


class Parcel:
    """An evaluator as bytes until it is opened, and as itself from then on.

    Every worker that has this class can receive it. What it cannot unpickle when it receives, Dask would send again
    and again, and wait for without end.
    """

    def __init__(self, data: bytes) -> None:
        """Hold what :meth:`packed` or another worker pickled."""
        self._data = data
        self._evaluator: PlanEvaluator | None = None

    @classmethod
    def packed(cls, evaluator: PlanEvaluator) -> "Parcel":
        """Return a parcel with this evaluator."""
        return cls(pickle.dumps(evaluator))

    def __reduce__(self) -> tuple[type["Parcel"], tuple[bytes]]:
        """Travel closed."""
        evaluator = self._evaluator
        return Parcel, (self._data if evaluator is None else pickle.dumps(evaluator),)

    def opened(self, worker: Worker) -> PlanEvaluator:
        """Return the evaluator, the same each time, at this worker.

        Raises:
            ClusterError: This worker cannot unpickle it.

        """
        if self._evaluator is None:
            try:
                self._evaluator = pickle.loads(self._data)
            except Exception as error:  # whatever the modules say that it imports
                raise unreadable(worker.address, error) from error
            self._data = b""
        return self._evaluator


async def opened_at(key: str, dask_worker: Worker) -> None:
    """Open the parcel of this key at a worker, which goes on answering meanwhile.

    A worker that joined since the parcel was sent out has none: it gets it, and opens it, with its first call.
    """
    if (parcel := dask_worker.data.get(key)) is not None:
        await asyncio.to_thread(parcel.opened, dask_worker)


def opened(argument: Any) -> Any:  # noqa: ANN401 - of any call
    """Return what a call in a worker is meant to get for this argument."""
    return argument.opened(get_worker()) if isinstance(argument, Parcel) else argument


def unreadable(address: str, error: Exception) -> ClusterError:
    """Return what a user is told of a worker that cannot unpickle what it is sent."""
    return ClusterError(
        f"worker {address} cannot read what it is to evaluate ({type(error).__name__}: {str(error)[:500]}); install "
        "there what this process imports, in the same versions, or name the workers that have it by the resources "
        "that they declare"
    )
