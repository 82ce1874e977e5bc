"""What the user can do about a fault, which credentials were sent, and what a failed preflight raises."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from mlflow_sysmetrics.errors import (
    AuthenticationError,
    ExperimentError,
    PreflightError,
    RunStartError,
    RunVerificationError,
    ServerUnreachableError,
    TrackingURIError,
)
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api import clients, fluent_state
from mlflow_sysmetrics.mlflow_api.artifact_target import ARTIFACT_LIBRARIES
from mlflow_sysmetrics.mlflow_api.clients import is_databricks
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.mlflow_api.transport import NOT_SENT
from mlflow_sysmetrics.preflight.retries import Retries

_NO_CREDENTIALS = "no credentials"
_FROM_PLUGIN = "what the plugin"
_DATABASES = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mssql"})
# By the name in an ImportError; a longer name precedes its own prefix.
_DRIVERS = (
    ("psycopg2", "psycopg2-binary"),
    ("psycopg", "psycopg[binary]"),
    ("MySQLdb", "mysqlclient"),
    ("pymysql", "pymysql"),
    ("pyodbc", "pyodbc"),
    *ARTIFACT_LIBRARIES,
)
_HOW_TO_SIGN_IN = (
    "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or "
    "MLFLOW_TRACKING_AUTH to what the server expects (google-id-token for Google Cloud Run)"
)
_WITHOUT_PROXY = "name the server's host in NO_PROXY if this machine can reach it itself"
_DATABRICKS = (
    "Set DATABRICKS_HOST and DATABRICKS_TOKEN, or run `databricks configure`; to use another profile of "
    "~/.databrickscfg than the default, set the tracking URI to databricks://profile."
)
_REMEDIES = {
    Cause.WRONG_HOST: (
        "Start the server with --allowed-hosts, or MLFLOW_SERVER_ALLOWED_HOSTS, naming the host and port of "
        "this tracking URI, or use a name that the server already allows."
    ),
    Cause.NOT_MLFLOW: (
        "Check host, port and path: no MLflow server responds there. If the server was started with "
        "--static-prefix, or a gateway serves it below a path, the tracking URI must end with that path."
    ),
    Cause.BAD_URI: (
        "Write it as https://host:port, sqlite:////absolute/path.db, "
        "postgresql://user:password@host/database, or databricks."
    ),
    Cause.BAD_DATABASE: (
        "Check that the database exists under this name and that this user may read and write it; for "
        "sqlite, that the directory exists and the disk is writable."
    ),
    Cause.OLD_DATABASE: (
        "Use the same version for client and database: run `mlflow db upgrade <tracking URI>` after a "
        "backup, or install the version of MLflow that created the database."
    ),
    Cause.MISSING: "Check the name or id: it may belong to another server, or have been deleted permanently.",
    Cause.EXISTS: "Choose another name, or use the one that exists.",
    Cause.DELETED: "Restore it (mlflow runs restore, mlflow experiments restore), or use another one.",
    Cause.POINT_EXISTS: "Check the server's log and its database: it has a value that was never sent.",
    Cause.TOO_LARGE: "Shorten what the server complains about, or raise its limit; retrying will not help.",
    Cause.REFUSED: "Fix what the server complains about; retrying will not help.",
    Cause.FAILED: "Fix what the server complains about; retrying will not help.",
    Cause.PROXY: (
        "Put the user and password of the proxy into HTTP_PROXY and HTTPS_PROXY "
        "(http://user:password@proxy:port), or name the tracking server in NO_PROXY."
    ),
    Cause.NOT_READ_BACK: (
        "Check the server's log and its database: it accepted what was written but does not return it."
    ),
}
CLOSING_SENTENCE = "Training does not proceed without experiment tracking."
_BY_STEP = (
    (TrackingURIError, "The tracking URI cannot be used"),
    (ServerUnreachableError, "The tracking server cannot be reached"),
    (ExperimentError, "The experiment cannot be used"),
    (RunStartError, "The run cannot be started"),
    (RunVerificationError, "The run does not return what was written to it"),
)
_BY_CAUSE = {
    Cause.UNAUTHENTICATED: (AuthenticationError, "The tracking server refuses the credentials"),
    Cause.FORBIDDEN: (AuthenticationError, "The tracking server refuses the request"),
    Cause.PROXY: (AuthenticationError, "A proxy before the tracking server asks for credentials"),
    Cause.WRONG_HOST: (AuthenticationError, "The tracking server refuses the host name"),
    Cause.BAD_URI: (TrackingURIError, "The tracking URI cannot be used"),
    Cause.NO_DRIVER: (TrackingURIError, "The tracking URI cannot be used here"),
    Cause.NOT_MLFLOW: (ServerUnreachableError, "No MLflow tracking server responds there"),
    Cause.TLS: (ServerUnreachableError, "No TLS connection to the tracking server"),
    Cause.BAD_DATABASE: (ServerUnreachableError, "The tracking store cannot be opened"),
    Cause.OLD_DATABASE: (ServerUnreachableError, "The tracking database has another schema version"),
}
_MORE_TIME = "Then start the job again; a server that starts slowly needs a larger max_retries or deadline."


def remedy(fault: Fault, tracking_uri: str, sent: str = _NO_CREDENTIALS) -> str:
    """Returns what to do about a fault, in one or two sentences.

    Args:
        fault: what came back.
        tracking_uri: where it came from; only its redacted form is shown.
        sent: the credentials that were sent, as `credentials_sent` names them.
    """
    if fault.remedy is not None:
        return fault.remedy
    if fault.cause in _REMEDIES:
        return _REMEDIES[fault.cause]
    by_cause: dict[Cause, Callable[[], str]] = {
        Cause.DOWN: lambda: (
            _when_down(redacted(tracking_uri)) if _is_of_server(fault) else _about_late_credentials(sent)
        ),
        Cause.UNAUTHENTICATED: lambda: _when_unauthenticated(tracking_uri, sent),
        Cause.FORBIDDEN: lambda: (
            _when_no_tunnel(tracking_uri) if opens_no_tunnel(fault) else _when_forbidden(tracking_uri, sent)
        ),
        Cause.TLS: lambda: _about_tls(fault, redacted(tracking_uri)),
        Cause.NO_DRIVER: lambda: _about_driver(fault),
    }
    return by_cause[fault.cause]()


def opens_no_tunnel(fault: Fault) -> bool:
    """Returns whether it was a proxy that answered, as it does not let the program through to the host."""
    return "tunnel connection failed" in fault.reason.lower()


def credentials_sent(tracking_uri: str) -> str:
    """Returns the kind of credentials that MLflow sends and where it takes them from. Never raises.

    Names the kind only, never the credentials.
    """
    try:
        credentials = _credentials(tracking_uri)
        return (
            f"{credentials}, and ~/.netrc has an entry for this host, which wins"
            if _in_netrc(tracking_uri)
            else credentials
        )
    except Exception as error:  # calls plugins and SDKs, for a message about another failure
        reraise_interruption(error)
        return "credentials that cannot be named"


def _when_unauthenticated(tracking_uri: str, sent: str) -> str:
    if _is_database(tracking_uri):
        return (
            "Check user and password in the tracking URI; without a user in it, the database assumes the "
            "user that runs this program."
        )
    sign_in = _DATABRICKS if is_databricks(tracking_uri) else f"{_HOW_TO_SIGN_IN}."
    expired = "" if _sent_nothing(sent) else " Check that they have not expired."
    return f"This program sent {sent}. {sign_in}{expired}"


def _when_forbidden(tracking_uri: str, sent: str) -> str:
    firewall = "a gateway or firewall in front of the server may also refuse the request."
    if _sent_nothing(sent):  # asking for a permission needs an account first
        sign_in = _DATABRICKS if is_databricks(tracking_uri) else f"{_HOW_TO_SIGN_IN}; {firewall}"
        return f"This program sent {sent}. {sign_in}"
    return (
        f"This program sent {sent}. Ask for permission to edit this experiment, or use another "
        f"account; {firewall}"
    )


def _when_no_tunnel(tracking_uri: str) -> str:
    return (
        f"{_proxy_for(tracking_uri) or 'The proxy'} does not let this program through to the server. Have "
        f"the server's host and port allowed there, or {_WITHOUT_PROXY}."
    )


def _proxy_for(tracking_uri: str) -> str:
    """Returns the proxy of the environment that requests go through, in words; "" if there is none."""
    from requests.utils import get_environ_proxies, select_proxy

    try:
        proxies = get_environ_proxies(tracking_uri, no_proxy=None)
        proxy = select_proxy(tracking_uri, proxies)
    except (OSError, ValueError):  # for a message about another failure
        return ""
    scheme = next((name for name, one in proxies.items() if one == proxy), "")
    return f"The proxy {redacted(proxy)} ({scheme.upper()}_PROXY)" if proxy else ""


def _sent_nothing(sent: str) -> bool:
    """Returns whether no credentials were sent; an entry in ~/.netrc may have provided some."""
    return sent.startswith(_NO_CREDENTIALS) and "~/.netrc" not in sent


def _when_down(shown: str) -> str:
    if is_databricks(shown):
        return (
            "Check the address of the workspace (DATABRICKS_HOST, or host in ~/.databrickscfg), and that "
            "this machine can reach it."
        )
    if _is_database(shown):
        return "Check that the database is up, that host and port are right, and that nothing else locks it."
    if proxy := _proxy_for(shown):
        return (
            f"Check that the server is up. {proxy} is in between: check that it is up and reaches the server "
            f"(curl {shown}/health), or {_WITHOUT_PROXY}."
        )
    return f"Check that the server is up, and that this machine can reach it (curl {shown}/health)."


def _is_of_server(fault: Fault) -> bool:
    """Returns whether the server is down, and not what gives the credentials for it."""
    return fault.cause is Cause.DOWN and not fault.reason.startswith(NOT_SENT)


def _about_late_credentials(sent: str) -> str:
    """Returns what to do about credentials that were not ready in time."""
    plugin = sent.removeprefix("what ").replace(" gave", "") if sent.startswith(_FROM_PLUGIN) else ""
    return (
        f"Check {plugin or 'what gives the credentials, or a plugin that adds headers'}: "
        "it may take as long as an attempt (timeout), and the server was not asked."
    )


def _about_tls(fault: Fault, shown: str) -> str:
    if "WRONG_VERSION_NUMBER" in fault.reason.upper().replace(" ", "_"):
        return f"The server does not speak TLS: write http://{shown.partition('://')[2]}."
    return (
        "Set MLFLOW_TRACKING_SERVER_CERT_PATH (or REQUESTS_CA_BUNDLE) to the certificate of the authority "
        "that signed the server's, and use the host name that the certificate is for; "
        "MLFLOW_TRACKING_INSECURE_TLS=true disables the check."
    )


def _about_driver(fault: Fault) -> str:
    needed = next((packages for name, packages in _DRIVERS if name in fault.reason), "")
    command = " ".join(["pip install", *(f"'{one}'" for one in needed.split())]) if needed else ""
    if "'psycopg'" in fault.reason and find_spec("psycopg2") is not None:
        return f"Write postgresql+psycopg2://..., for which psycopg2 is installed here, or: {command}."
    if command:
        return f"Install the driver where the training runs: {command}."
    return "Install the missing Python package where the training runs."


def _is_database(tracking_uri: str) -> bool:
    return tracking_uri.partition(":")[0].partition("+")[0] in _DATABASES


def _credentials(tracking_uri: str) -> str:
    if urlsplit(tracking_uri).username:
        return "the user and password of the tracking URI"
    if not clients.is_remote(tracking_uri):
        return _NO_CREDENTIALS  # a database's are part of its URI
    try:
        creds = clients.host_creds(tracking_uri)
    except Exception as error:  # the Databricks SDK raises ValueError, in some versions others
        reraise_interruption(error)
        if clients.is_databricks(tracking_uri):
            return f"{_NO_CREDENTIALS}: none for Databricks were found"
        raise
    return _of_creds(creds)


def _of_creds(creds: Any) -> str:
    """Returns the name of MLflow's credentials, in the order of precedence that MLflow gives them."""
    user, password = getattr(creds, "username", None), getattr(creds, "password", None)
    named = _NO_CREDENTIALS
    if getattr(creds, "use_databricks_sdk", False):
        named = "what the Databricks SDK found (DATABRICKS_* or ~/.databrickscfg)"
    elif getattr(creds, "aws_sigv4", False):
        named = "a signature of AWS SigV4 (MLFLOW_TRACKING_AWS_SIGV4)"
    elif auth := getattr(creds, "auth", None):
        named = f"{_FROM_PLUGIN} {auth!r} gave (MLFLOW_TRACKING_AUTH)"
        if auth not in fluent_state.auth_plugins():
            named = f"{_NO_CREDENTIALS}: no plugin named {auth!r} (MLFLOW_TRACKING_AUTH) is installed"
    elif user and password:
        named = "basic authentication (MLFLOW_TRACKING_USERNAME and _PASSWORD, or ~/.mlflow/credentials)"
    elif getattr(creds, "token", None):
        named = "a bearer token (MLFLOW_TRACKING_TOKEN)"
    elif user or password:
        named = f"{_NO_CREDENTIALS}: only one of user and password is set"
    return named


def _in_netrc(tracking_uri: str) -> bool:
    """Returns whether requests would send the credentials of ~/.netrc instead of a token."""
    from requests.utils import get_netrc_auth

    return tracking_uri.startswith("http") and get_netrc_auth(tracking_uri) is not None


def failure(fault: Fault, retries: Retries, tracking_uri: str, left_behind: str = "") -> PreflightError:
    """Returns the exception to raise for a fault.

    Args:
        fault: what came back last.
        retries: the attempts that were made, and the step they belong to.
        tracking_uri: the server; shown without secrets.
        left_behind: a sentence about a run that could not be ended.
    """
    step = retries.step
    error_class, headline = _BY_CAUSE.get(fault.cause, _BY_STEP[step])
    if fault.cause is Cause.FORBIDDEN and opens_no_tunnel(fault):
        headline = "A proxy before the tracking server refuses the connection"
    shown = redacted(tracking_uri)
    sentences = [
        f"{headline}: {shown}, step {step} of 4, {_tried(retries)}: {fault.reason.rstrip('.')}.",
        f"It was not tried again: {retries.gave_up}." if retries.gave_up else "",
        remedy(fault, tracking_uri, credentials_sent(tracking_uri)),
        _MORE_TIME
        if fault.cause is Cause.DOWN and NOT_SENT not in fault.reason and shown.startswith("http")
        else "",
        left_behind,
        CLOSING_SENTENCE,
    ]
    return error_class(
        cleaned(" ".join(one for one in sentences if one), tracking_uri),
        step=step,
        attempts=tuple(retries.made),
        status_code=fault.status_code,
        tracking_uri=shown,
    )


def _tried(retries: Retries) -> str:
    """Returns how often the last request was sent, and within how many seconds."""
    count = retries.count
    times = "once" if count == 1 else f"{count} times"
    return f"tried {times} within {retries.elapsed:.1f} s"
