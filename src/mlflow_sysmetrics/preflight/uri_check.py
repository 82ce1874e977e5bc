"""Whether a tracking URI can work, found out without contacting a server."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

_HTTP = frozenset({"http", "https"})
_HOST_AND_PORT = re.compile(r"[\w.\-]+:\d{1,5}(/.*)?")
_NEARLY_HTTP = re.compile(r"(https?)(?:/{1,3}|;/{1,2}|:/?)(\w[\w.\-]*(?::\d+)?(?:/.*)?)")
_CATALOGS = frozenset({"databricks-uc", "uc"})
_MEANT = {
    "postgres": "postgresql",
    "pg": "postgresql",
    "mariadb": "mysql+pymysql",
    "sqlite3": "sqlite",
    "sqlserver": "mssql+pyodbc",
    "htps": "https",
    "htp": "http",
}
_STORES_OF_ARTIFACTS = frozenset({"s3", "gs", "wasb", "wasbs", "abfss", "dbfs", "hdfs", "r2", "b2"})
_HTTP_FORM = "Write it as https://host:port."


def problem_with(tracking_uri: str) -> str | None:
    """Returns what is wrong with a tracking URI and what to write instead; None if nothing is."""
    shown = redacted(tracking_uri)
    problem = _problem_with_form(tracking_uri, shown)
    if problem is not None:
        return problem
    scheme = tracking_uri.partition(":")[0].lower() if ":" in tracking_uri else tracking_uri
    if scheme in _HTTP:
        return _problem_with_http(tracking_uri, shown)
    if scheme in _CATALOGS:
        return (
            f"{shown!r} is a model registry, not a tracking server. Use the tracking URI 'databricks', and "
            f"mlflow.set_registry_uri({shown!r})."
        )
    if ":memory:" in tracking_uri or (
        scheme.startswith("sqlite") and urlsplit(tracking_uri).path in {"", "/"}
    ):
        return (
            f"The database {shown!r} is in memory and is lost when the program ends. Name a file: "
            "sqlite:///runs.db."
        )
    return _problem_with_store(tracking_uri, shown)


def _problem_with_form(tracking_uri: str, shown: str) -> str | None:
    if not tracking_uri.strip():
        return f"The tracking URI is empty. {fluent_state.HOW_TO_SET}"
    if re.search(r"[\s\x00-\x1f]", tracking_uri) and tracking_uri.strip().lower().startswith(
        ("http:", "https:")
    ):
        return (
            f"The tracking URI {shown.strip()!r} contains a space or a line break. Remove it; secrets and "
            "files often end with one."
        )
    if _HOST_AND_PORT.fullmatch(tracking_uri) and not Path(tracking_uri).exists():
        return f"The tracking URI {shown!r} has no scheme. Write http://{shown} or https://{shown}."
    nearly = _NEARLY_HTTP.fullmatch(shown)
    if nearly is not None and not Path(tracking_uri).exists():
        return f"The tracking URI {shown!r} has no '://'. Write {nearly[1]}://{nearly[2]}."
    if tracking_uri.startswith("databricks:") and not re.match("databricks://[^/]", tracking_uri):
        return f"The tracking URI {shown!r} names no profile. Write databricks, or databricks://profile."
    return None


def _problem_with_http(tracking_uri: str, shown: str) -> str | None:
    try:
        parts = urlsplit(tracking_uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        # The error's own text may quote the address, which can include a password.
        reason = (
            "its port must be an integer from 0 to 65535"
            if "port" in str(error).lower()
            else "it is malformed"
        )
        return f"The tracking URI {shown!r} cannot be parsed: {reason}. {_HTTP_FORM}"
    if not host:
        return f"The tracking URI {shown!r} has no host. {_HTTP_FORM}"
    if port == 0:
        return f"The tracking URI {shown!r} has port 0, which no server can listen on. {_HTTP_FORM}"
    if parts.query or parts.fragment:
        return (
            f"The tracking URI {shown!r} has a query or a fragment, to which MLflow would append paths. "
            "Remove it."
        )
    return None


def _problem_with_store(tracking_uri: str, shown: str) -> str | None:
    known = fluent_state.known_schemes()
    scheme = fluent_state.scheme_of(tracking_uri)
    if scheme not in known and scheme.partition("+")[0] in _MEANT:
        meant = _MEANT[scheme.partition("+")[0]]
        return (
            f"The tracking URI {shown!r} has the scheme {scheme!r}, which MLflow does not know. Write "
            f"{meant}{shown[len(scheme) :]}."
        )
    if scheme not in known and scheme in _STORES_OF_ARTIFACTS:
        return (
            f"The tracking URI {shown!r} is a store of artifacts. Runs need a server or a database, such as "
            "https://host:port or sqlite:///runs.db; artifacts go to such a store if the server was started "
            f"with --artifacts-destination {shown}."
        )
    if scheme not in known:
        names = ", ".join(sorted(one for one in known if one and one not in _CATALOGS))
        return (
            f"No tracking store is registered for the scheme {scheme!r} of {shown!r}. This MLflow knows "
            f"{names}. Correct the scheme, or install the plugin that provides it."
        )
    if scheme in {"", "file"} and fluent_state.refuses_directories():
        return (
            f"The tracking URI {shown!r} is a directory, which MLflow {fluent_state.version()} refuses: its "
            "file store is in maintenance mode since 3.13. Use a database, such as sqlite:///mlflow.db, or a "
            "server; `mlflow migrate-filestore` moves the runs. MLFLOW_ALLOW_FILE_STORE=true still allows it "
            "for now."
        )
    return None
