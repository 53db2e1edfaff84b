"""What names a cluster, and what is turned down before anything is sent there."""

from pathlib import Path

import pytest

from autoprune.errors import ClusterError
from autoprune.search.cluster import Cluster
from autoprune.service.settings import Settings


def test_a_cluster_is_named_by_the_environment_or_the_caller(tmp_path: Path) -> None:
    variables = {"AUTOPRUNE_CLUSTER": "tcp://127.0.0.1:8786", "AUTOPRUNE_CLUSTER_RESOURCES": "memory=2, GPU=0.5"}
    assert Cluster.from_environment(environment={}) is None
    assert Cluster.from_environment(environment={"AUTOPRUNE_CLUSTER": ""}) is None
    named = Cluster("tcp://127.0.0.1:8786", (("GPU", 0.5), ("memory", 2)))
    assert Cluster.from_environment(environment=variables) == named
    found = Cluster.from_environment("tcp://[::1]:1", variables)
    assert found is not None
    assert found.url == "tcp://[::1]:1"
    for name in ("CA", "CERT", "KEY"):
        (tmp_path / name).touch()
        variables[f"AUTOPRUNE_CLUSTER_{name}"] = str(tmp_path / name)
    found = Cluster.from_environment("tls://far.example:8786", variables)
    assert found is not None
    assert (found.ca, found.cert, found.key) == (tmp_path / "CA", tmp_path / "CERT", tmp_path / "KEY")
    assert found.is_encrypted
    open_network = Cluster.from_environment("tcp://10.0.0.7:8786", {"AUTOPRUNE_CLUSTER_INSECURE": "1"})
    assert open_network is not None
    assert not open_network.is_encrypted


@pytest.mark.parametrize(
    ("url", "more", "message"),
    [
        ("127.0.0.1:8786", {}, "expected the address of a Dask scheduler"),
        ("http://127.0.0.1:8786", {}, "expected the address"),
        ("tcp://127.0.0.1", {}, "expected the address"),
        ("tcp://127.0.0.1:99999", {}, "expected the address"),
        ("tcp://user@127.0.0.1:8786", {}, "expected the address"),
        ("tcp://127.0.0.1:8786/x", {}, "expected the address"),
        ("tcp://scheduler:8786", {}, "must be one of this machine; use tls"),
        ("tcp://0.0.0.0:8786", {}, "must be one of this machine"),
        ("tcp://localhost.far:8786", {"INSECURE": "0"}, "must be one of this machine"),
        ("tcp://127.0.0.1:8786", {"INSECURE": "yes"}, "expected 0 or 1, found 'yes'"),
        ("tls://127.0.0.1:8786", {}, "AUTOPRUNE_CLUSTER_CA is not set"),
        ("tls://127.0.0.1:8786", {"CA": "/nowhere"}, "AUTOPRUNE_CLUSTER_CA: expected a PEM file, found nothing at"),
        *(
            ("tcp://127.0.0.1:8786", {"RESOURCES": text}, "expected name=amount as in GPU=1")
            for text in ("GPU", "GPU=", "=1", "GPU=0", "GPU=-1", "GPU=inf", "GPU=nan", "GPU=1;x=2")
        ),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_service_starts(url: str, more: dict[str, str], message: str) -> None:
    variables = {"AUTOPRUNE_CLUSTER": url, **{f"AUTOPRUNE_CLUSTER_{name}": text for name, text in more.items()}}
    with pytest.raises(ClusterError, match=message):
        Settings.from_environment(variables)
