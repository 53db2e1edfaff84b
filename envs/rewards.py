"""What an agent is rewarded with at the end of an episode (He et al. 2018, arXiv 1802.03494, sec. 3.3 and 3.4)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.errors import SearchError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward for an objective and costs, higher is better, never above 0.

    With ``error = 1 - objective``: ``-error``, which leaves the cost to the budget (resource-constrained compression),
    or ``-error * log(cost)``, which trades one for the other (accuracy-guaranteed compression); natural logarithm of
    the absolute cost, in its own unit.

    Attributes:
        quantity: The cost that counts besides the error; None where the error is all.

    """

    quantity: str | None = None

    def __call__(self, objective: float, cost: Mapping[str, int]) -> float:
        """Return the reward for the objective (top-1 or agreement, 0 to 1) and the costs of one policy."""
        error = 1 - objective
        return -error if self.quantity is None else -error * math.log(max(1, cost[self.quantity]))


#: Rewards by name; that of an episode over budget is -inf under all of them.
REWARDS: Mapping[str, Reward] = {
    "-error": Reward(),
    "-error*log(macs)": Reward("macs"),
    "-error*log(params)": Reward("params"),
    "-error*log(nonzero)": Reward("nonzero"),
}


def reward(name: str) -> Reward:
    """Return the reward of this name.

    Raises:
        UnknownNameError: No such reward.

    """
    if name not in REWARDS:
        raise UnknownNameError("reward", name, REWARDS)
    return REWARDS[name]


def reward_within(name: str, costs: Mapping[str, int]) -> Reward:
    """Return the reward of this name for a problem whose policies have `costs`.

    Raises:
        UnknownNameError: No such reward.
        SearchError: It counts a cost that is not among them.

    """
    found = reward(name)
    if found.quantity not in (None, *costs):
        raise SearchError(
            f"reward {name!r} needs the cost {found.quantity!r}, this problem has {', '.join(costs)}; "
            "choose another reward"
        )
    return found
