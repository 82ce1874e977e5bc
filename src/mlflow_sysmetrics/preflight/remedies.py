"""What to do about a fault, in the words of whoever has to do it."""

from __future__ import annotations

from mlflow_sysmetrics.mlflow_api.clients import is_databricks
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

_ALLOWED_HOSTS = (
    "Start the server with --allowed-hosts, or MLFLOW_SERVER_ALLOWED_HOSTS, naming the host and port of this "
    "tracking URI, or use the name that it is already known by."
)
# By what an ImportError names; the longer name first.
_DRIVERS = (
    ("psycopg2", "psycopg2-binary"),
    ("psycopg", "psycopg[binary]"),
    ("MySQLdb", "mysqlclient"),
    ("pymysql", "pymysql"),
    ("pyodbc", "pyodbc"),
)
_HOW_TO_SIGN_IN = (
    "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or "
    "MLFLOW_TRACKING_AUTH to what the server expects (google-id-token for Google Cloud Run)"
)
_DATABRICKS = (
    "Set DATABRICKS_HOST and DATABRICKS_TOKEN, or run `databricks configure`; for another profile of "
    "~/.databrickscfg than the default one the tracking URI is databricks://profile."
)
_DATABASES = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mssql"})
_REMEDIES = {
    Cause.WRONG_HOST: _ALLOWED_HOSTS,
    Cause.NOT_MLFLOW: (
        "Check host, port and path: no MLflow answers there. If the server was started with "
        "--static-prefix, or a "
        "gateway serves it below a path, the tracking URI ends with that path."
    ),
    Cause.BAD_URI: (
        "Write it as https://host:port, sqlite:////absolute/path.db, "
        "postgresql://user:password@host/database, or "
        "databricks."
    ),
    Cause.BAD_DATABASE: (
        "Check the database's name, that it exists, and that this user may read and write it; for "
        "sqlite, that "
        "the directory exists and the disk is writable."
    ),
    Cause.OLD_DATABASE: (
        "Let client and database have the same version: run `mlflow db upgrade <tracking URI>` after "
        "a backup, or "
        "install the version of MLflow that made the database."
    ),
    Cause.MISSING: "Check the name or id: it may belong to another server, or have been deleted for good.",
    Cause.EXISTS: "Choose another name, or let the one that exists be used.",
    Cause.DELETED: "Restore it (mlflow runs restore, mlflow experiments restore), or use another one.",
    Cause.POINT_EXISTS: "Look at the server's log and its database: it has a value that was never sent.",
    Cause.TOO_LARGE: "Shorten what the server complains of, or raise the limit; trying again will not help.",
    Cause.REFUSED: "Change what the server complains of; trying again will not help.",
    Cause.FAILED: "Change what the server complains of; trying again will not help.",
    Cause.PROXY: (
        "Put the user and password of the proxy into HTTP_PROXY and HTTPS_PROXY "
        "(http://user:password@proxy:port), or name the tracking server in NO_PROXY."
    ),
    Cause.NOT_READ_BACK: (
        "Look at the server's log and its database: it accepted what was written and does not return it."
    ),
}


def remedy(fault: Fault, tracking_uri: str, mechanism: str = "no credentials") -> str:  # noqa: PLR0911 - one for each cause that needs more than a text
    """Returns what to do about a fault, in one or two sentences.

    Args:
        fault: what came back.
        tracking_uri: where it came from; only its redacted form is used.
        mechanism: how we said who we are, as `mechanisms.mechanism` tells.
    """
    shown = redacted(tracking_uri)
    if fault.remedy is not None:
        return fault.remedy
    if fault.cause is Cause.DOWN:
        return _when_down(shown)
    if fault.cause is Cause.UNAUTHENTICATED:
        return _when_unknown(tracking_uri, mechanism)
    if fault.cause is Cause.FORBIDDEN:
        return _when_forbidden(tracking_uri, mechanism)
    if fault.cause is Cause.TLS:
        return _about_tls(fault, shown)
    if fault.cause is Cause.NO_DRIVER:
        return _about_driver(fault)
    return _REMEDIES[fault.cause]


def _when_unknown(tracking_uri: str, mechanism: str) -> str:
    if _is_database(tracking_uri):
        return (
            "Check user and password in the tracking URI; where it names no user, the database takes the "
            "one that this program runs as."
        )
    sign_in = _DATABRICKS if is_databricks(tracking_uri) else f"{_HOW_TO_SIGN_IN}."
    expired = "" if _sent_nothing(mechanism) else " Check that they have not expired."
    return f"This program sent {mechanism}. {sign_in}{expired}"


def _when_forbidden(tracking_uri: str, mechanism: str) -> str:
    firewall = "a gateway or firewall in front of the server may refuse as well."
    if _sent_nothing(mechanism):  # nobody can be given a permission who does not say who he is
        sign_in = _DATABRICKS if is_databricks(tracking_uri) else f"{_HOW_TO_SIGN_IN}; {firewall}"
        return f"This program sent {mechanism}. {sign_in}"
    return (
        f"This program sent {mechanism}. Ask for permission to edit this experiment, or use another "
        f"account; {firewall}"
    )


def _sent_nothing(mechanism: str) -> bool:
    """Returns whether a mechanism is one of those without credentials; ~/.netrc may have had some."""
    return mechanism.startswith("no credentials") and "~/.netrc" not in mechanism


def _when_down(shown: str) -> str:
    if is_databricks(shown):
        return (
            "Check the address of the workspace (DATABRICKS_HOST, or host in ~/.databrickscfg), and that "
            "this machine reaches it."
        )
    if _is_database(shown):
        return "Check that the database is up, that host and port are right, and that nothing else locks it."
    return (
        f"Check that the server is up and that this machine reaches it (curl {shown}/health), that a proxy "
        "(HTTPS_PROXY, NO_PROXY) is not in the way, and start the job again; a server that starts "
        "slowly needs a "
        "larger max_retries or deadline."
    )


def _about_tls(fault: Fault, shown: str) -> str:
    if "WRONG_VERSION_NUMBER" in fault.reason.upper().replace(" ", "_"):
        return f"The server does not speak TLS: write http://{shown.partition('://')[2]}."
    return (
        "Set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of the authority that signed the "
        "server's (or "
        "REQUESTS_CA_BUNDLE), and use the name that the certificate is for; "
        "MLFLOW_TRACKING_INSECURE_TLS=true "
        "switches the check off."
    )


def _about_driver(fault: Fault) -> str:
    found = next((f"pip install '{package}'" for name, package in _DRIVERS if name in fault.reason), None)
    if found:
        return f"Install the driver where the training runs: {found}."
    return "Install the Python package that it names where the training runs."


def _is_database(tracking_uri: str) -> bool:
    return tracking_uri.partition(":")[0].partition("+")[0] in _DATABASES
