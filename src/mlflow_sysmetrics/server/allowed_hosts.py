"""The host names of a server, as MLflow compares them with the Host header of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch

_EVERY = "*"
# What MLflow accepts by default: this machine, and private networks.
_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")  # a name in a header, not an address to bind
_PRIVATE = ("192.168.*", "10.*", *(f"172.{part}.*" for part in range(16, 32)))
DEFAULT = (*_LOCAL, *(f"{name}:*" for name in _LOCAL), *_PRIVATE)


def with_ports(names: Iterable[str]) -> list[str]:
    """Returns the names as MLflow expects them: a name without a port is also allowed with any port.

    MLflow compares the whole header, which includes a port other than 80 and 443: "mlflow" alone would
    reject http://mlflow:5000.
    """
    expanded: dict[str, None] = {}
    for name in names:
        expanded[name] = None
        if ":" not in name and not name.endswith(_EVERY):
            expanded[f"{name}:*"] = None
    return list(expanded)


def origins_of(names: Iterable[str]) -> list[str]:
    """Returns the origins that browsers send for the pages of a server with these names.

    They send one with every change that a user makes on the server's own pages, and by default MLflow rejects
    all origins but localhost. Allowing any host name ("*") does not allow pages of any site.
    """
    known = [name for name in with_ports(names) if name != _EVERY]
    return [f"{scheme}://{name}" for name in known for scheme in ("http", "https")]


def is_allowed(header: str, patterns: Sequence[str]) -> bool:
    """Returns whether MLflow would accept a request with this Host header."""
    if _EVERY in patterns:
        return True
    return any(fnmatch(header, one) if _EVERY in one else header == one for one in patterns)


def example_of(pattern: str, port: int) -> str:
    """Returns a Host header that matches a pattern."""
    return pattern.replace("[[]", "[").replace(_EVERY, str(port))
