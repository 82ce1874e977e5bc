"""Messages name the credentials that were sent, without opening what has none."""

from __future__ import annotations

from typing import NoReturn

import pytest

from mlflow_sysmetrics.mlflow_api import clients
from mlflow_sysmetrics.preflight.mechanisms import mechanism


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg2://127.0.0.1:1/x",
        "mysql://host/x",
        "sqlite:////proc/a.db",
        "/proc/mlruns",
        "mlruns",
    ],
)
def test_a_store_that_mlflow_opens_itself_is_not_opened_for_a_message(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(clients, "open_client", opened.append)
    assert (mechanism(uri), opened) == ("no credentials", [])


def test_databricks_without_credentials_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_uri: str) -> NoReturn:
        raise RuntimeError("Reading Databricks credential configuration failed")

    monkeypatch.setattr(clients, "host_creds", none)
    assert mechanism("databricks").startswith("no credentials")
