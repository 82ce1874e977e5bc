"""Whether a tracking URI can mean anything, told without asking anybody."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

_HTTP = frozenset({"http", "https"})
_HOST_AND_PORT = re.compile(r"[\w.\-]+:\d{1,5}(/.*)?")
_CATALOGS = frozenset({"databricks-uc", "uc"})


def problem_with(tracking_uri: str) -> str | None:  # noqa: PLR0911 - one for each problem
    """Returns what is wrong with a tracking URI and what to write instead; None where nothing is."""
    shown = redacted(tracking_uri)
    if not tracking_uri.strip():
        return f"The tracking URI is empty. {fluent_state.HOW_TO_SET}"
    if re.search(r"[\s\x00-\x1f]", tracking_uri) and tracking_uri.partition(":")[0] in _HTTP:
        return (
            f"The tracking URI {shown.strip()!r} has a space or a line break in it. Remove it; secrets and "
            "files often end with one."
        )
    if _HOST_AND_PORT.fullmatch(tracking_uri) and not Path(tracking_uri).exists():
        return f"The tracking URI {shown!r} has no scheme. Write http://{shown} or https://{shown}."
    scheme = tracking_uri.partition(":")[0].lower() if ":" in tracking_uri else tracking_uri
    if scheme in _HTTP:
        return _problem_with_http(tracking_uri, shown)
    if scheme in _CATALOGS:
        return (
            f"{shown!r} is a model registry, not a tracking server. Use tracking URI 'databricks', and "
            f"mlflow.set_registry_uri({shown!r})."
        )
    if ":memory:" in tracking_uri or (
        scheme.startswith("sqlite") and urlsplit(tracking_uri).path in {"", "/"}
    ):
        return (
            f"The database {shown!r} is in memory and ends with the program. Name a file: sqlite:///runs.db."
        )
    return _problem_with_store(tracking_uri, shown)


def _problem_with_http(tracking_uri: str, shown: str) -> str | None:
    example = "Write it as https://host:port."
    try:
        parts = urlsplit(tracking_uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        # Its text may quote the address, of which a password can be part.
        reason = (
            "its port is no number from 0 to 65535" if "port" in str(error).lower() else "it is malformed"
        )
        return f"The tracking URI {shown!r} cannot be read: {reason}. {example}"
    if not host:
        return f"The tracking URI {shown!r} names no host. {example}"
    if port == 0:
        return f"The tracking URI {shown!r} has port 0, which nobody listens on. {example}"
    if parts.query or parts.fragment:
        return (
            f"The tracking URI {shown!r} has a query or a fragment, where MLflow appends paths. Leave it out."
        )
    return None


def _problem_with_store(tracking_uri: str, shown: str) -> str | None:
    known = fluent_state.known_schemes()
    scheme = fluent_state.scheme_of(tracking_uri)
    if scheme not in known:
        names = ", ".join(sorted(one for one in known if one and one not in _CATALOGS))
        return (
            f"No tracking store is registered for the scheme {scheme!r} of {shown!r}. MLflow here "
            f"knows: {names}. "
            "Correct the scheme, or install the plugin that brings it."
        )
    if scheme in {"", "file"} and fluent_state.refuses_directories():
        return (
            f"The tracking URI {shown!r} is a directory, and MLflow {fluent_state.version()} refuses "
            "those: its "
            "file store is in maintenance mode since 3.13. Use a database, such as sqlite:///mlflow.db, or a "
            "server; `mlflow migrate-filestore` moves the runs. MLFLOW_ALLOW_FILE_STORE=true allows "
            "it for now."
        )
    return None
