"""The stand-in is put into MLflow, tested without MLflow: with packages of the same and of other layouts."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mlflow_sysmetrics import monitor
from mlflow_sysmetrics.daemon import process
from mlflow_sysmetrics.errors import SettingsError, ThreadUnavailable, Unavailable
from mlflow_sysmetrics.mlflow_api import fluent_state, runs
from mlflow_sysmetrics.settings import METRICS

CLASS = "class SystemMetricsMonitor:\n    pass\nOTHER = 1\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with the layout of MLflow's system metrics, and MLflow's switch."""
    (tmp_path / "likemlflow").mkdir()
    (tmp_path / "likemlflow/__init__.py").write_text("")
    (tmp_path / "likemlflow/monitor.py").write_text(CLASS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(monitor, "MONITOR_MODULE", "likemlflow.monitor")
    switches = ModuleType("mlflow.environment_variables")
    setattr(switches, METRICS, SimpleNamespace(default=False))
    monkeypatch.setitem(sys.modules, "mlflow.environment_variables", switches)
    waiting = monitor._MonitorFinder  # installed for MLflow itself if another test has imported it
    monkeypatch.setattr(sys, "meta_path", [one for one in sys.meta_path if not isinstance(one, waiting)])
    importlib.invalidate_caches()
    yield tmp_path / "likemlflow"
    for name in [name for name in sys.modules if name.startswith("likemlflow")]:
        del sys.modules[name]


def switch() -> SimpleNamespace:
    return getattr(sys.modules["mlflow.environment_variables"], METRICS)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("package")
def test_the_class_is_replaced_when_its_module_is_imported() -> None:
    monitor.install()
    assert "likemlflow.monitor" not in sys.modules
    found = importlib.import_module("likemlflow.monitor")
    assert found.SystemMetricsMonitor is monitor.SystemMetricsMonitor
    assert found.OTHER == 1
    assert switch().default is True


@pytest.mark.usefixtures("package")
def test_the_class_of_an_imported_module_is_replaced_at_once() -> None:
    found = importlib.import_module("likemlflow.monitor")
    monitor.install()
    assert found.SystemMetricsMonitor is monitor.SystemMetricsMonitor


@pytest.mark.usefixtures("package")
def test_installing_twice_is_installing_once() -> None:
    finders = len(sys.meta_path)
    monitor.install()
    monitor.install()
    assert len(sys.meta_path) == finders + 1
    importlib.import_module("likemlflow.monitor")
    assert len(sys.meta_path) == finders


def test_an_mlflow_without_system_metrics_is_named(package: Path) -> None:
    (package / "monitor.py").unlink()
    with pytest.raises(Unavailable, match=r"MLflow \d.* has no system metrics; MLflow 2.8 and newer have"):
        monitor.install()
    assert switch().default is False


def test_an_mlflow_without_the_class_is_left_alone_with_one_warning(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (package / "monitor.py").write_text("OTHER = 1\n")
    monitor.install()
    assert importlib.import_module("likemlflow.monitor").OTHER == 1
    (record,) = caplog.records
    assert "likemlflow.monitor" in record.message
    assert "has no SystemMetricsMonitor to replace" in record.message


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("given", "wanted"), [("maybe", True), ("off", False), ("0", False), ("True", True)])
def test_a_switch_value_that_mlflow_rejects_is_read(
    monkeypatch: pytest.MonkeyPatch, given: str, wanted: bool
) -> None:
    monitor.install()
    monkeypatch.setenv(METRICS, given)
    assert switch().get() is wanted


@pytest.mark.usefixtures("package")
def test_finding_the_spec_of_the_module_keeps_the_hook() -> None:
    monitor.install()
    assert importlib.util.find_spec("likemlflow.monitor") is not None
    assert importlib.import_module("likemlflow.monitor").SystemMetricsMonitor is monitor.SystemMetricsMonitor


@pytest.mark.parametrize(
    "wrong", [{"sampling_interval": -1}, {"samples_before_logging": 0}, {"node_id": "("}]
)
def test_an_invalid_argument_in_code_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        monitor.SystemMetricsMonitor("run", **wrong)  # type: ignore[arg-type]


def test_runs_that_cannot_be_attached_cause_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ThreadUnavailable("no thread can be started: can't start new thread at interpreter shutdown")

    told: list[object] = []
    monkeypatch.setattr(process, "prepare", fail)
    monkeypatch.setattr(runs, "set_tags_now", lambda *given: told.append(given))
    monkeypatch.setattr(monitor, "_warned", set())
    for n in range(10):
        one = monitor.SystemMetricsMonitor(f"run {n}")
        one.start()
        one.finish()
    (record,) = caplog.records
    assert "System metrics are off: ThreadUnavailable: no thread can be started" in record.message
    assert told == [(None, f"run {n}", {"sys.metrics": "off: no thread can be started"}) for n in range(10)]


class JobTimeout(Exception):
    """Of the program."""


def start_as_mlflow_does(run_id: str) -> None:
    """The end of `mlflow.start_run`, with its guard."""
    try:
        monitor.SystemMetricsMonitor(run_id).start()
    except Exception as error:  # noqa: BLE001 - as in MLflow
        pytest.fail(f"Failed to start system metrics monitoring: {error}.")


def test_an_exception_of_the_program_passes_through_mlflows_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise JobTimeout("late")

    monkeypatch.setattr(process, "prepare", interrupted)
    run = SimpleNamespace(info=SimpleNamespace(run_id="run", start_time=1), data=SimpleNamespace(tags={}))
    monkeypatch.setattr(fluent_state, "run_being_started", lambda *_: run)
    with pytest.raises(JobTimeout, match="late") as raised:
        start_as_mlflow_does("run")
    assert raised.value.__suppress_context__
    monkeypatch.setattr(fluent_state, "run_being_started", lambda *_: None)
    with pytest.raises(JobTimeout, match="late"):
        monitor.SystemMetricsMonitor("run").start()


def test_an_exception_is_held_back_for_its_own_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    monkeypatch.setattr(process, "prepare", unavailable)
    monkeypatch.setattr(runs, "set_tags_now", lambda *_: None)
    frame = sys._getframe()
    assert not monitor.hold_back(OSError("ours"), frame)
    assert monitor.hold_back(JobTimeout("late"), frame)
    with pytest.raises(JobTimeout):
        monitor.SystemMetricsMonitor("run").start()
    assert monitor.hold_back(JobTimeout("of a start that failed"), frame)
    start_as_mlflow_does("run")
    monitor.SystemMetricsMonitor("run").start()
