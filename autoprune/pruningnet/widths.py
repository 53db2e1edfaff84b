"""Random widths, as a PruningNet is trained on."""

import numpy as np

from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy

#: Shares that may be kept of a group: 0.10, 0.13, ... 1.00 (liuzechun/MetaPruning).
SCALES = np.linspace(0.10, 1.00, 31).round(2)


def random_plan(problem: PruningProblem, generator: np.random.Generator) -> Plan:
    """Draw a scale for every group, uniformly and independently; keep the allowed number of channels nearest to it."""
    scales = generator.choice(SCALES, len(problem.groups))
    return problem.plan(PruningPolicy.of(1 - scales))
