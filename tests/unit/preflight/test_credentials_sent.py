"""Messages name the kind of credentials that were sent, without opening the store."""

from __future__ import annotations

from typing import NoReturn

import pytest

from mlflow_sysmetrics.mlflow_api import clients
from mlflow_sysmetrics.preflight.remedies import credentials_sent


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
def test_a_database_or_directory_is_not_opened_to_name_its_credentials(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(clients, "open_client", opened.append)
    assert (credentials_sent(uri), opened) == ("no credentials", [])


def test_databricks_without_configured_credentials_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_uri: str) -> NoReturn:
        raise RuntimeError("Reading Databricks credential configuration failed")

    monkeypatch.setattr(clients, "host_creds", none)
    assert credentials_sent("databricks").startswith("no credentials")
