"""MLflow's own client of a tracking store: which kind of store a URI names, and how it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_sysmetrics.mlflow_api import fluent_state

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_OPENED_HERE = frozenset({"", "file", *_DATABASES})


def import_mlflow() -> None:
    """Imports everything of MLflow that our threads use. Call it in a thread of the program.

    MLflow's modules import each other in a circle. If two threads start at different ends of it, Python
    breaks the deadlock by giving one of them a half-initialised module. Its import fails, and that may be
    the program's own `import mlflow`.
    """
    import mlflow.store.tracking.rest_store
    import mlflow.tracking  # noqa: F401 - for its side effect


def load(tracking_uri: str) -> None:
    """Imports the modules that a store needs; on a slow disk this takes longer than a request may."""
    import mlflow

    import_mlflow()
    if is_database(tracking_uri):
        import mlflow.store.db.utils
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - for its side effect


def open_client(tracking_uri: str) -> Any:
    """Returns an `MlflowClient`. For a database this connects, and creates or migrates tables."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri)


def host_creds(tracking_uri: str) -> Any:
    """Returns the host and credentials that MLflow would use now, freshly resolved.

    Only for a URI that `is_remote`: MLflow would open a database, and try for a minute and a half.
    """
    return fluent_state.store_of(open_client(tracking_uri)).get_host_creds()


def is_remote(tracking_uri: str) -> bool:
    """Returns whether a tracking URI names a server; False for a database or a directory. Opens nothing."""
    return fluent_state.scheme_of(tracking_uri) not in _OPENED_HERE


def is_databricks(tracking_uri: str) -> bool:
    """Returns whether a tracking URI is Databricks', which the environment or a profile completes."""
    return tracking_uri.partition(":")[0] == "databricks"


def is_database(tracking_uri: str) -> bool:
    """Returns whether a tracking URI names a database that this process opens."""
    return tracking_uri.startswith(_DATABASES)


def speaks_rest(tracking_uri: str) -> bool:
    """Returns whether MLflow's own REST client serves a tracking URI."""
    if tracking_uri.partition(":")[0] in {"http", "https"}:
        return True
    return is_plain_rest(fluent_state.store_of(open_client(tracking_uri)), "create_run")


def is_plain_rest(store: Any, *methods: str) -> bool:
    """Returns whether a store is MLflow's own REST client.

    Args:
        store: the store of a client.
        *methods: more methods that a plugin must not have replaced, besides those of delivery.
    """
    from mlflow.store.tracking.rest_store import RestStore

    return isinstance(store, RestStore) and all(
        getattr(type(store), name) is getattr(RestStore, name)
        for name in ("log_batch", "get_run", "_call_endpoint", *methods)
    )


def look_into_database(tracking_uri: str) -> None:
    """Connects once and reads the catalogue. MLflow itself would try for a minute and a half, silently."""
    from mlflow.store.db import utils
    from sqlalchemy import inspect

    getattr(utils, "_make_parent_dirs_if_sqlite", lambda _uri: None)(tracking_uri)
    engine = utils.create_sqlalchemy_engine(tracking_uri)
    try:
        inspect(engine).get_table_names()
    finally:
        engine.dispose()


def log_batch(  # noqa: PLR0917 - MLflow's own arguments
    client: Any,
    run_id: str,
    metric: tuple[str, float],
    timestamp: int,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """Writes a metric at step 0, parameters and tags through a client."""
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(
        run_id,
        metrics=[Metric(metric[0], metric[1], timestamp, 0)],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
