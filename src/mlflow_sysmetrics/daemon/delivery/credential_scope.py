"""Which tracking servers may see the credentials of the environment.

MLflow sends them to any server that it is pointed at, because the user chose that server. A journal may name
another one: an experiment of last year, a host that has new owners.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlflow_sysmetrics.mlflow_api.tracking_uris import origin


def is_trusted(tracking_uri: str, chosen: Iterable[str]) -> bool:
    """Returns whether a server may see credentials: it is one of the chosen servers, whatever the path.

    A URI without a host (a file, "databricks" and its profiles) brings its own credentials, or none.

    Args:
        tracking_uri: from a journal.
        chosen: tracking URIs that the user or this program has named.
    """
    server = origin(tracking_uri)
    if server is None:
        return not tracking_uri.lower().startswith("http")  # then the host cannot be read
    return server[0].startswith("databricks") or any(origin(one) == server for one in chosen)
