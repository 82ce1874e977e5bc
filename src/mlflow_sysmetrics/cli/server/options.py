"""The server that `server doctor` is asked about: its settings, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WORKERS = 4  #: how many MLflow starts where nothing is said


@dataclass(frozen=True, kw_only=True)
class AskedServer:
    """What is known of a server.

    Attributes:
        backend_store_uri: of its database; None where nothing says.
        artifacts_destination: directory or URI; None where nothing says.
        workers: processes that answer.
        allowed_hosts: patterns of the names that it may be called by; empty for MLflow's default.
        public_names: by which its users call it, each with a port where that is not 80 or 443.
        basic_auth: whether it asks for users and passwords.
        environ: its environment.
    """

    backend_store_uri: str | None = field(default=None, repr=False)
    artifacts_destination: str | None = None
    workers: int = WORKERS
    allowed_hosts: tuple[str, ...] = ()
    public_names: tuple[str, ...] = ()
    basic_auth: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def number(self, name: str, default: int) -> int:
        """Returns a variable that is a number; the default where it is not set or none."""
        try:
            return int(self.environ.get(name) or default)
        except ValueError:
            return default
