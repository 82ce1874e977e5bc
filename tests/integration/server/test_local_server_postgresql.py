"""A `LocalServer` on PostgreSQL, which may go down and come back."""

from __future__ import annotations

import threading
from itertools import count

import pytest
from server_calls import call, family, log_metric, new_run
from server_database import PASSWORD, Database

from mlflow_sysmetrics.server import LocalServer, ServerStartError
from watching import eventually

pytest_plugins = ["server_fixtures"]
pytestmark = pytest.mark.usefixtures("forked")


def test_it_creates_the_tables_and_responds(postgres_store: str) -> None:
    with LocalServer(postgres_store) as running:
        run_id = new_run(running.url)
        assert log_metric(running.url, run_id, 1).status == 200
        assert len(family(running.pid)) <= 3  # two, and of MLflow 2 the master of gunicorn
    with LocalServer(postgres_store) as again:
        assert '"value": 1' in call(again.url, "GET", f"runs/get?run_id={run_id}").text


def test_it_recovers_after_the_database_was_down(postgres_store: str, database: Database) -> None:
    with LocalServer(postgres_store) as running:
        run_id, before = new_run(running.url), family(running.pid)
        ended, statuses = threading.Event(), list[int]()

        def stream() -> None:
            for step in count():
                if ended.is_set():
                    return
                statuses.append(log_metric(running.url, run_id, step).status)

        streaming = threading.Thread(target=stream)
        streaming.start()
        try:
            eventually(lambda: 200 in statuses)
            database.stop()
            eventually(lambda: statuses[-1] >= 500)
            database.start()
            eventually(lambda: statuses[-1] == 200)
        finally:
            ended.set()
            streaming.join()
        assert family(running.pid) == before


def test_the_uri_may_contain_any_password(database: Database) -> None:
    quoted = PASSWORD.replace("%", "%25").replace("@", "%40").replace("/", "%2F").replace(":", "%3A")
    quoted = quoted.replace("?", "%3F").replace("#", "%23")
    with LocalServer(f"postgresql://mlflow:{quoted}@{database.place}") as running:
        assert new_run(running.url)
        assert PASSWORD not in running.log_path.read_text()


def test_a_wrong_password_is_reported_at_once_and_not_shown(database: Database) -> None:
    wrong = LocalServer(f"postgresql://mlflow:wr0ng-p4ssword@{database.place}")
    with pytest.raises(
        ServerStartError, match=r"refuses the connection: .*password authentication failed"
    ) as raised:
        wrong.start()
    assert "wr0ng" not in str(raised.value)
    assert raised.value.log_tail == ""


def test_a_database_that_is_down_is_reported_at_once() -> None:
    away = LocalServer("postgresql://mlflow:s3cr3t@127.0.0.1:1/mlflow")
    with pytest.raises(
        ServerStartError, match=r"refuses the connection: .*Check that the database is up"
    ) as raised:
        away.start()
    assert "s3cr3t" not in str(raised.value)


def test_tables_of_another_version_are_reported_with_a_remedy(
    postgres_store: str, database: Database
) -> None:
    with LocalServer(postgres_store):
        pass
    database.ask("UPDATE alembic_version SET version_num = '451aebb31d03';")
    with pytest.raises(ServerStartError, match="mlflow db upgrade"):
        LocalServer(postgres_store).start()
