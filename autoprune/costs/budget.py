"""A budget: one or several hard limits on what the pruned network may cost."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.costs.quantities import LATENCY, LIMITABLE, NONZERO, NS_PER_MS, shown
from autoprune.errors import BudgetError, InfeasibleBudgetError, UnknownNameError

_UNITS = {
    "": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12,
    "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
}  # fmt: skip
_TIME_UNITS = {"ns": 1e-6 * NS_PER_MS, "us": 1e-3 * NS_PER_MS, "ms": NS_PER_MS, "s": 1e3 * NS_PER_MS}
_ALIASES = {"flops": "macs", "parameters": "params"}
_EXAMPLE = "for example macs=50%, params=100k, bytes=1.5MB, latency=12ms, or several: macs=50%,params=40%"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `value` of `quantity`: absolute, or a fraction of the unpruned network's cost when `relative`."""

    quantity: str
    value: float
    relative: bool

    def __post_init__(self) -> None:
        if self.quantity not in LIMITABLE:
            raise UnknownNameError("budget quantity", self.quantity, [*LIMITABLE, *_ALIASES])
        if not math.isfinite(self.value) or self.value <= 0:
            raise BudgetError(f"budget {self}: expected a limit above 0, {_EXAMPLE}")
        if self.relative and self.value >= 1:
            raise BudgetError(
                f"budget {self}: expected less than 100% of the unpruned network; nothing would be pruned"
            )

    def absolute(self, unpruned: int) -> int:
        """Return the largest allowed cost, given the unpruned one; whole, rounded down."""
        return math.floor(round(self.value * (unpruned if self.relative else 1), 6))

    def __str__(self) -> str:
        amount = f"{self.value * 100:g}%" if self.relative else shown(self.quantity, self.value)
        return f"{self.quantity} <= {amount}"


@dataclass(frozen=True, slots=True)
class Budget:
    """Several limits, all of which must hold."""

    limits: tuple[Limit, ...]

    def __post_init__(self) -> None:
        names = [limit.quantity for limit in self.limits]
        if not names:
            raise BudgetError(f"a budget needs at least one limit, {_EXAMPLE}")
        if len(set(names)) != len(names):
            raise BudgetError(f"budget limits the same quantity twice: {', '.join(names)}")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read ``macs=50%``, ``params=100k``, ``bytes=1MB``, ``latency=12ms`` or several joined by commas.

        Raises:
            BudgetError: Not of this form, or a limit of 0, of a negative amount, of 100% or more.
            UnknownNameError: An unknown quantity.

        """
        limits = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*([A-Za-z_]+)\s*=\s*([-+.\deE]+?)\s*(%|[A-Za-z]*)\s*", part)
            unit = match[3].lower() if match else ""
            units = _TIME_UNITS if match and match[1].lower() == LATENCY else _UNITS
            if match and units is _TIME_UNITS and not unit:
                raise BudgetError(
                    f"budget {part.strip()!r} needs a unit: {LATENCY}={match[2]}ms, or a share, {LATENCY}=50%"
                )
            if match is None or (unit != "%" and unit not in units):
                raise BudgetError(f"cannot read budget {part.strip()!r}; expected quantity=amount, {_EXAMPLE}")
            try:
                amount = float(match[2])
            except ValueError:
                raise BudgetError(f"budget {part.strip()!r}: {match[2]!r} is not a number, {_EXAMPLE}") from None
            named = match[1].lower()
            quantity, relative = _ALIASES.get(named, named), unit == "%"
            if named == "flops" and not relative:
                raise BudgetError(
                    f"budget {part.strip()!r}: FLOPs are MACs to some and twice as many to others; "
                    "give MACs, for example macs=30M, or a share, flops=50%"
                )
            limits.append(Limit(quantity, amount / 100 if relative else amount * units[unit], relative))
        return cls(tuple(limits))

    def __str__(self) -> str:
        return ", ".join(str(limit) for limit in self.limits)

    def resolve(self, unpruned: Mapping[str, int], smallest: Mapping[str, int]) -> dict[str, int]:
        """Return the absolute limits ``{quantity: largest allowed cost}``.

        Raises:
            BudgetError: An absolute limit at or above the unpruned cost of a single limit: nothing to prune; or a
                limit of latency without a latency table, or of what does not follow from what is pruned.
            InfeasibleBudgetError: A limit below the `smallest` reachable cost.

        """
        missing = [limit.quantity for limit in self.limits if limit.quantity not in unpruned]
        if missing and missing != [LATENCY]:
            raise BudgetError(
                f"budget {self}: {missing[0]} cannot be limited here (channels are pruned within macs, params, bytes "
                f"or latency, single weights within {NONZERO}); limit {' or '.join(unpruned)}"
            )
        if missing:
            raise BudgetError(
                f"budget {self}: latency is that of a device, give its latency table with --device NAME or a file; "
                "autoprune device measure MODEL makes one of this machine, autoprune device pack MODEL of another"
            )
        limits = {limit.quantity: limit.absolute(unpruned[limit.quantity]) for limit in self.limits}
        if all(unpruned[quantity] <= most for quantity, most in limits.items()):
            found = ", ".join(f"{quantity} {shown(quantity, unpruned[quantity])}" for quantity in limits)
            raise BudgetError(f"budget {self}: the unpruned network already holds it ({found}); ask for less")
        for limit in self.limits:
            quantity, least = limit.quantity, smallest[limit.quantity]
            if least > limits[quantity]:
                share = least / unpruned[quantity]
                percent = limit.value if limit.value >= 1 else 100 * limit.value
                meant = f" Did you mean {percent:g}%?" if not limit.relative and percent < 100 else ""
                raise InfeasibleBudgetError(
                    f"budget {limit} cannot be reached: {shown(quantity, limits[quantity])} of "
                    f"{shown(quantity, unpruned[quantity])} asked, "
                    f"the smallest reachable value is {shown(quantity, least)} ({share:.1%}); "
                    f"allow more, raise max_ratio, lower round_to or set include_residual.{meant}"
                )
        return limits


def holds(cost: Mapping[str, int], limits: Mapping[str, int]) -> bool:
    """Tell whether `cost` keeps all absolute `limits`."""
    return all(cost[quantity] <= most for quantity, most in limits.items())
