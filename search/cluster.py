"""Which cluster evaluates candidates, and how it is spoken to: an address and what goes with it, checked. No engine."""

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from autoprune.errors import ClusterError

#: Names the cluster; the others go with it.
VARIABLE = "AUTOPRUNE_CLUSTER"
RESOURCES = "AUTOPRUNE_CLUSTER_RESOURCES"
INSECURE = "AUTOPRUNE_CLUSTER_INSECURE"
CA, CERT, KEY = "AUTOPRUNE_CLUSTER_CA", "AUTOPRUNE_CLUSTER_CERT", "AUTOPRUNE_CLUSTER_KEY"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Dask cluster that somebody else runs.

    Whoever reaches the port of its scheduler can run code on all of its workers, and a worker can run code in this
    process: what travels between them are pickles. So an address without TLS must be of this machine, unless `insecure`
    says that the network between is closed to others.

    Attributes:
        url: Address of the scheduler, ``tcp://host:port`` or ``tls://host:port``.
        resources: What each evaluation takes of the resources that workers declare, by name.
        ca: With ``tls://``, file of the certificates that sign those of the cluster (PEM), and of nobody else.
        cert: With ``tls://``, file of this client's certificate (PEM).
        key: With ``tls://``, file of its private key (PEM).
        insecure: Whether ``tcp://`` may go to another machine.

    """

    url: str
    resources: tuple[tuple[str, float], ...] = ()
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Check the address and the files.

        Raises:
            ClusterError: No address of a cluster, one that is not safe, or files that are missing.

        """
        scheme, host = _parts(self.url)
        if scheme == "tls":
            self._check_files()
        elif not (self.insecure or _is_loopback(host)):
            raise ClusterError(
                f"{self.url}: whoever reaches a tcp:// port can run code on both sides, so it must be one of this "
                f"machine; use tls:// with {CA}, {CERT} and {KEY}, or set {INSECURE}=1 where the network is closed "
                "to others"
            )

    @classmethod
    def from_environment(cls, url: str | None = None, environment: Mapping[str, str] | None = None) -> "Cluster | None":
        """Return the cluster at `url`, or at ``AUTOPRUNE_CLUSTER``, with what the environment says of it.

        Args:
            url: Its address; without, the environment's.
            environment: The variables; None for those of this process.

        Returns:
            None where nobody names one.

        Raises:
            ClusterError: An address or a variable that cannot be used.

        """
        variables = os.environ if environment is None else environment
        address = url or variables.get(VARIABLE, "")
        if not address:
            return None
        insecure = variables.get(INSECURE) or "0"
        if insecure not in ("0", "1"):
            raise ClusterError(f"{INSECURE}: expected 0 or 1, found {insecure!r}")
        files = {name: Path(variables[name]) if variables.get(name) else None for name in (CA, CERT, KEY)}
        resources = _resources(variables.get(RESOURCES, ""))
        return cls(address, resources, files[CA], files[CERT], files[KEY], insecure == "1")

    @property
    def is_encrypted(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.url.startswith("tls://")

    def _check_files(self) -> None:
        """Refuse TLS without the three files."""
        for name, path in ((CA, self.ca), (CERT, self.cert), (KEY, self.key)):
            if path is None:
                raise ClusterError(f"{self.url}: tls:// needs the PEM files {CA}, {CERT} and {KEY}; {name} is not set")
            if not path.is_file():
                raise ClusterError(f"{name}: expected a PEM file, found nothing at {path}")


def _parts(url: str) -> tuple[str, str]:
    """Return scheme and host of an address.

    Raises:
        ClusterError: Not ``tcp://host:port`` or ``tls://host:port``.

    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    extra = parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or port is None or extra:
        raise ClusterError(
            f"expected the address of a Dask scheduler, tcp://host:port or tls://host:port, found {url[:200]!r}; "
            f"it is set by --cluster or {VARIABLE}"
        )
    return parts.scheme, parts.hostname


def _is_loopback(host: str) -> bool:
    """Tell whether a host is surely this machine; other names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _resources(text: str) -> tuple[tuple[str, float], ...]:
    """Read ``GPU=1`` or ``GPU=0.5,memory=2``.

    Raises:
        ClusterError: It reads otherwise.

    """
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, amount = (word.strip() for word in part.partition("="))
        try:
            found[name] = float(amount)
        except ValueError:
            found[name] = math.nan
        if not name or not 0 < found[name] < math.inf:
            raise ClusterError(f"{RESOURCES}: expected name=amount as in GPU=1, found {part[:100]!r}")
    return tuple(sorted(found.items()))
