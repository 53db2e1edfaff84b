"""The cost model as a polynomial."""

import numpy as np
import pytest

from autoprune.costs.cost_model import cost_model
from autoprune.costs.quantities import QUANTITIES
from autoprune.groups.channel_group import find_groups
from autoprune.network.tracer import trace
from tests.corpus import NETWORKS, input_shape


@pytest.mark.parametrize("name", NETWORKS)
def test_polynomial_is_the_cost(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    groups = find_groups(network)
    costs = cost_model(network, groups, groups.prunable(include_residual=True))
    forms, full, rng = costs.quadratic(), costs.full(), np.random.default_rng(0)
    for kept in (full, np.ones_like(full), *(rng.integers(1, full + 1) for _ in range(20))):
        cost = costs.cost(kept)
        assert {quantity: forms[quantity].at(kept) for quantity in QUANTITIES} == cost
    for form in forms.values():
        assert form.constant >= 0
        assert (form.linear >= 0).all()
        assert (form.pairs >= 0).all()
        assert (form.pairs == np.triu(form.pairs)).all()
