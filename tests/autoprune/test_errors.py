"""Errors come back from worker processes as themselves."""

import pickle

from autoprune.errors import UnknownNameError


def test_an_unknown_name_survives_the_way_between_processes() -> None:
    error = UnknownNameError("policy", "exakt", ["exact", "uniform"])
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is UnknownNameError
    assert str(back) == str(error)
    assert "Did you mean 'exact'?" in str(back)
