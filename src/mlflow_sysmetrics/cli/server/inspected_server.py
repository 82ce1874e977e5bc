"""The configuration of the server that `server doctor` inspects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_WORKERS = 4  #: MLflow's default


@dataclass(frozen=True, kw_only=True)
class InspectedServer:
    """What is known about a server before it runs.

    Attributes:
        backend_store_uri: URI of its database; None if unknown.
        artifacts_destination: directory or URI; None if unknown.
        workers: number of worker processes.
        allowed_hosts: patterns of host names it answers to; empty for MLflow's default.
        public_names: host names its users call, each with a port unless that is 80 or 443.
        basic_auth: whether it asks for users and passwords.
        environ: its environment.
    """

    backend_store_uri: str | None = field(default=None, repr=False)
    artifacts_destination: str | None = None
    workers: int = DEFAULT_WORKERS
    allowed_hosts: tuple[str, ...] = ()
    public_names: tuple[str, ...] = ()
    basic_auth: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def number(self, name: str, default: int) -> int:
        """Returns the value of an integer variable; the default if it is unset or not an integer."""
        try:
            return int(self.environ.get(name) or default)
        except ValueError:
            return default
