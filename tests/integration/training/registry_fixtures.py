"""A registry in a sqlite store, with an active run to log models to."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow
import pytest
from programs import Store
from registry_store import Registry


@pytest.fixture
def registry(store: Store) -> Iterator[Registry]:
    """A registry with an active run."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(store.uri)
    try:
        with mlflow.start_run(log_system_metrics=False) as run:
            yield Registry(store.client, run.info.run_id)
    finally:
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(before or "")
