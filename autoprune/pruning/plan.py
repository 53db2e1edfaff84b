"""A plan: which channels of every group are kept; with weights, the whole artifact of a pruning job."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import PlanError
from autoprune.files import write_whole
from autoprune.groups.channel_group import ChannelGroups

FORMAT = "autoprune-plan/1"


@dataclass(frozen=True, slots=True)
class Plan:
    """Kept units of every pruned group; groups not named are kept whole.

    Attributes:
        kept: Group name -> sorted indices, within the group, of the units that stay.
        model_sha256: Fingerprint of the network the plan was made for.

    """

    kept: Mapping[str, tuple[int, ...]]
    model_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        kept = {name: list(indices) for name, indices in self.kept.items()}
        return {"format": FORMAT, "model_sha256": self.model_sha256, "kept": kept}

    @classmethod
    def from_dict(cls, data: object) -> "Plan":
        """Read a plan back.

        Raises:
            PlanError: The data is not a plan of this format.

        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise PlanError(f"expected a plan with format {FORMAT!r}, found {found!r}")
        kept = data.get("kept")
        if not isinstance(kept, dict) or not isinstance(data.get("model_sha256"), str):
            raise PlanError("a plan needs 'model_sha256' (text) and 'kept' ({group name: [indices]})")
        for name, indices in kept.items():
            if not isinstance(indices, list) or not all(type(index) is int for index in indices):
                raise PlanError(f"plan: kept indices of group {name!r} must be a list of whole numbers")
        return cls({name: tuple(indices) for name, indices in kept.items()}, data["model_sha256"])

    def save(self, path: Path) -> None:
        """Write the plan as JSON, completely or not at all."""
        write_whole(path, (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan file.

        Raises:
            PlanError: The file is missing, not JSON or not a plan.

        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"cannot read plan {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path} is not a JSON plan: {error}") from error
        return cls.from_dict(data)

    def check(self, groups: ChannelGroups) -> None:
        """Make sure the plan fits a network's groups.

        Raises:
            PlanError: An unknown or frozen group, no channel left, an index out of range, unsorted or doubled.

        """
        by_name = {group.name: group for group in groups.groups}
        for name, indices in self.kept.items():
            group = by_name.get(name)
            if group is None:
                raise PlanError(
                    f"plan names group {name!r}, which this network does not have; was it made for another?"
                )
            if group.frozen is not None and len(indices) != len(group):
                raise PlanError(f"group {name!r} cannot be pruned: {group.frozen}")
            if not indices:
                raise PlanError(f"plan keeps no channel of group {name!r}; at least one must stay")
            if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= len(group):
                raise PlanError(f"plan: indices of group {name!r} must be ascending, distinct and below {len(group)}")

    def removed_units(self, groups: ChannelGroups) -> frozenset[int]:
        """Return the numbers of all units that go."""
        removed: set[int] = set()
        for group in groups.groups:
            if group.name in self.kept:
                kept = set(self.kept[group.name])
                removed.update(unit for index, unit in enumerate(group.units) if index not in kept)
        return frozenset(removed)

    def kept_units(self, groups: ChannelGroups) -> NDArray[np.bool_]:
        """Tell for every unit of the network whether the plan, which must fit, keeps it, ``(n_units,)``."""
        kept = np.ones(groups.n_units, dtype=bool)
        kept[list(self.removed_units(groups))] = False
        return kept
