"""A policy in the making, as text."""

from collections.abc import Sequence

from autoprune.costs.quantities import shown
from autoprune.envs.layerwise_problem import LayerwiseProblem

#: Characters of a bar that stands for a whole group.
BAR = 32


def drawing(problem: LayerwiseProblem[object], kept: Sequence[int]) -> str:
    """Return one line per group, and one per limit: how much is kept so far, and what that costs.

    Of a group decided, ``#`` is kept and ``.`` removed; a group still to be decided is blank and costs what all of it
    does. For example::

        conv0   8 / 16  ################................
        conv1  24 / 24

        macs 74,240 of 60,352, too much so far

    Args:
        problem: What is decided.
        kept: Units kept of the groups decided so far, at most ``(n_groups,)``.

    """
    sizes = [int(width[-1]) for width in problem.widths]
    now = [*kept, *sizes[len(kept) :]]
    name_width, digits = max(map(len, problem.names)), len(str(max(sizes)))
    lines = []
    for index, (name, count, size) in enumerate(zip(problem.names, now, sizes, strict=True)):
        filled = max(1, round(BAR * count / size))
        bar = "#" * filled + "." * (BAR - filled) if index < len(kept) else ""
        lines.append(f"{name:<{name_width}}  {count:>{digits}} / {size:>{digits}}  {bar}".rstrip())
    cost = problem.cost(now)
    over = "over budget" if len(kept) == len(sizes) else "too much so far"
    lines.append("")
    for quantity, most in problem.limits.items():
        verdict = "within budget" if cost[quantity] <= most else over
        lines.append(f"{quantity} {shown(quantity, cost[quantity])} of {shown(quantity, most)}, {verdict}")
    return "\n".join(lines)
