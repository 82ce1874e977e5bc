"""Which tracking servers see the credentials of the environment, and how others are spoken to.

MLflow gives them to whatever server it is sent to, since that is the one its user has chosen. A journal may
name another one: an experiment of last year, a host that has new owners.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow_sysmetrics.mlflow_api.tracking_uris import origin

#: What to say where a server refuses a request that went without credentials.
WITHHELD = "credentials of the environment go to the server of MLFLOW_TRACKING_URI alone"


def is_trusted(tracking_uri: str, chosen: Iterable[str]) -> bool:
    """Tells whether a server may see credentials: it is one of the chosen ones, whatever the path.

    What names no host (a file, "databricks" and its profiles) has credentials of its own, or none.

    Args:
        tracking_uri: from a journal.
        chosen: tracking URIs that the user or this program has named.
    """
    server = origin(tracking_uri)
    if server is None:
        return not tracking_uri.lower().startswith("http")  # whose host cannot be made out
    return server[0].startswith("databricks") or any(origin(one) == server for one in chosen)


def without_credentials(creds: Any) -> Any:
    """Returns MLflow's description of a server with the host and how to verify it, and no more."""
    return type(creds)(
        creds.host,
        ignore_tls_verification=creds.ignore_tls_verification,
        server_cert_path=creds.server_cert_path,
    )


def anonymous_request(creds: Any, endpoint: str, method: str, **options: Any) -> Any:
    """Sends one request as nobody in particular; returns the answer, whose body is still to be read.

    Not with MLflow's own function, which has plugins add headers to each request, and those may be tokens.
    Proxies and ~/.netrc apply: they say themselves which hosts they are for.
    """
    import requests

    url = f"{creds.host.rstrip('/')}{endpoint}"
    return requests.request(method, url, verify=creds.verify, stream=True, **options)  # noqa: S113 - among them
