"""What the form for a new job offers."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.criteria.catalog import CRITERIA, criterion_names
from autoprune.search.policies import POLICIES
from autoprune.service.devices.tables import TableStore
from autoprune.service.engine.service import Service
from autoprune.service.rest.uploads import builtin_dataset
from autoprune.service.rest.views import DatasetView, ModelView
from autoprune.service.storage.tables import DatasetRow, ModelRow
from autoprune.zoo.registry import ARCHITECTURES

#: Most models, and most datasets, that are offered.
MOST = 100

#: What a policy does, in a few words.
_WORDS = {
    "uniform": "the same share everywhere: the baseline",
    "random": "draws ratios at random",
    "sensitivity": "probes each layer, spares the sensitive ones",
    "global": "ranks the channels of all layers at once",
    "exact": "allocates by reconstruction errors, then searches",
    "netadapt": "shrinks one group at a time",
    "amc": "reinforcement learning",
    "evolution": "breeds the best so far",
    "metapruning": "evolution with predicted weights",
    "tpe": "Optuna: tree-structured Parzen estimator",
    "gp": "Optuna: Gaussian process",
    "cmaes": "Optuna: CMA-ES",
    "nsga2": "Optuna: NSGA-II",
    "qmc": "Optuna: quasi-random points",
}


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from.

    Attributes:
        models: Uploaded models, newest first.
        datasets: Uploaded datasets, newest first, and the built-in one.
        devices: Devices with latency tables.
        policies: Each with what it does.
        architectures: Those that safetensors can be the weights of.
        criteria: What channels can be ranked by, each with what it means.

    """

    models: Sequence[ModelView]
    datasets: Sequence[DatasetView]
    devices: Sequence[str]
    policies: Sequence[tuple[str, str]]
    architectures: Sequence[str]
    criteria: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, service: Service) -> "Choices":
        """Look at what a service has."""
        datasets = [DatasetView.of(row) for row in service.records.all(DatasetRow, limit=MOST)]
        return cls(
            models=[ModelView.of(row) for row in service.records.all(ModelRow, limit=MOST)],
            datasets=[*datasets, builtin_dataset()],
            devices=TableStore(service.settings.home).devices(),
            policies=[(name, _WORDS.get(name, "")) for name in POLICIES],
            architectures=tuple(ARCHITECTURES),
            criteria=[(name, CRITERIA[name].meaning) for name in criterion_names("channel")],
        )
