"""A study is not stored in MLflow's database, and a refusal leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

import mlflow
from sqlalchemy import create_engine, inspect, text

from mlflow_sysmetrics import OptunaRunner
from mlflow_sysmetrics.training.hpo.optuna_study import check_storage

pytestmark = pytest.mark.heavy


def database(path: Path, *tables: str) -> str:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for table in tables:
            connection.execute(text(f"CREATE TABLE {table} (version_num VARCHAR(32))"))
    engine.dispose()
    return f"sqlite:///{path}"


def tables(url: str) -> list[str]:
    engine = create_engine(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def test_a_database_of_mlflow_is_refused_and_left_alone(tmp_path: Path) -> None:
    names = ("alembic_version", "experiments", "latest_metrics", "runs")
    url = database(tmp_path / "mlflow.db", *names)
    with pytest.raises(ValueError, match=r"a database of Optuna's own, got .*, which is MLflow's.*study\.db"):
        OptunaRunner("study", "minimize", "loss", storage=url)
    assert tables(url) == sorted(names)


@pytest.mark.parametrize("relative", [True, False])
def test_the_tracking_database_is_refused_even_before_it_has_tables(tmp_path: Path, relative: bool) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    path = os.path.relpath(tmp_path / "runs.db") if relative else tmp_path / "runs.db"
    with pytest.raises(ValueError, match="which is MLflow's"):
        OptunaRunner("study", "minimize", "loss", storage=f"sqlite:///{path}")
    assert not (tmp_path / "runs.db").exists()


@pytest.mark.parametrize(
    ("tracking", "storage"),
    [
        ("postgresql://a:secret1@host:5432/mlflow", "postgresql+psycopg2://b:secret2@host:5432/mlflow"),
        ("mysql+pymysql://a@host/mlflow", "mysql://b:secret2@host/mlflow?charset=utf8"),
    ],
)
def test_another_user_or_driver_is_the_same_database_and_no_password_is_shown(
    tracking: str, storage: str
) -> None:
    mlflow.set_tracking_uri(tracking)
    with pytest.raises(ValueError, match="CREATE DATABASE optuna") as refused:
        check_storage(storage)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "storage", [None, "sqlite://", "sqlite:///:memory:", object(), "no url", "sqlite:///new.db"]
)
def test_anything_else_is_left_to_optuna(storage: object) -> None:
    mlflow.set_tracking_uri("http://host")
    check_storage(storage)
    assert not Path("new.db").exists()


def test_a_study_of_optuna_is_opened_again(tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    url = f"sqlite:///{tmp_path}/study.db"
    for _ in range(2):
        assert OptunaRunner("study", "minimize", "loss", storage=url).study.study_name == "study"


def test_a_path_with_a_tilde_is_refused_with_the_complete_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    with pytest.raises(ValueError, match=r"Write sqlite:////home/someone/study\.db"):
        check_storage("sqlite:///~/study.db")
