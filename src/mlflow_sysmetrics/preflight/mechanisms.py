"""How this program says who it is, for messages: the kind of credentials, never the credentials."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from mlflow_sysmetrics.mlflow_api import clients, fluent_state


def mechanism(tracking_uri: str) -> str:
    """Returns which credentials MLflow sends, and where it takes them from. Never raises."""
    try:
        found = _mechanism(tracking_uri)
        return (
            f"{found}, and ~/.netrc has an entry for this host, which wins"
            if _in_netrc(tracking_uri)
            else found
        )
    except Exception:  # noqa: BLE001 - plugins and SDKs are asked; this is for a message about another failure
        return "credentials that cannot be named"


def _mechanism(tracking_uri: str) -> str:
    if urlsplit(tracking_uri).username:
        return "the user and password of the tracking URI"
    if not clients.is_remote(tracking_uri):
        return "no credentials"  # those of a database stand in its URI
    try:
        creds = clients.host_creds(tracking_uri)
    except Exception:  # the Databricks SDK raises ValueError, in some versions others
        if clients.is_databricks(tracking_uri):
            return "no credentials: none for Databricks were found"
        raise
    return _named(creds)


def _named(creds: Any) -> str:  # noqa: PLR0911 - MLflow's; one for each mechanism, in MLflow's order
    if getattr(creds, "use_databricks_sdk", False):
        return "what the Databricks SDK found (DATABRICKS_* or ~/.databrickscfg)"
    if getattr(creds, "aws_sigv4", False):
        return "a signature of AWS SigV4 (MLFLOW_TRACKING_AWS_SIGV4)"
    if auth := getattr(creds, "auth", None):
        if auth not in fluent_state.auth_plugins():
            return f"no credentials: no plugin named {auth!r} (MLFLOW_TRACKING_AUTH) is installed"
        return f"what the plugin {auth!r} gave (MLFLOW_TRACKING_AUTH)"
    user, password = getattr(creds, "username", None), getattr(creds, "password", None)
    if user and password:
        return "basic authentication (MLFLOW_TRACKING_USERNAME and _PASSWORD, or ~/.mlflow/credentials)"
    if getattr(creds, "token", None):
        return "a bearer token (MLFLOW_TRACKING_TOKEN)"
    if user or password:
        return "no credentials: of user and password only one is set"
    return "no credentials"


def _in_netrc(tracking_uri: str) -> bool:
    """Returns whether requests would put the credentials of ~/.netrc in place of a token."""
    from requests.utils import get_netrc_auth

    return tracking_uri.startswith("http") and get_netrc_auth(tracking_uri) is not None
