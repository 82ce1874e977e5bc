"""The stand-in is put into MLflow, tested without MLflow: with packages of the same and of other layouts."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mlflow_sysmetrics import monitor
from mlflow_sysmetrics.daemon import launch, process
from mlflow_sysmetrics.errors import SettingsError, ThreadUnavailable, Unavailable
from mlflow_sysmetrics.mlflow_api import clients, fluent_state, runs
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


RAN = "import sys\nsys.modules['likemlflow'].ran = getattr(sys.modules['likemlflow'], 'ran', 0) + 1\n"


def test_mlflows_monitor_is_not_run_for_its_class(package: Path) -> None:
    """Running it imports what reads the machine for MLflow: ten milliseconds of the first `start_run`."""
    (package / "monitor.py").write_text(RAN + CLASS)
    monitor.install()
    found = importlib.import_module("likemlflow.monitor")
    assert found.SystemMetricsMonitor is monitor.SystemMetricsMonitor
    assert {"OTHER", "SystemMetricsMonitor", "__name__"} <= set(dir(found))
    with pytest.raises(AttributeError, match=r"'likemlflow\.monitor' has no attribute 'nothing'"):
        _ = found.nothing
    parent = sys.modules["likemlflow"]
    assert not hasattr(parent, "ran")
    assert (found.OTHER, found.OTHER, parent.ran) == (1, 1, 1)
    assert found.SystemMetricsMonitor is monitor.SystemMetricsMonitor


@pytest.mark.usefixtures("package")
def test_other_names_of_mlflows_monitor_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's own tests do with the readers of GPUs."""
    monitor.install()
    found = importlib.import_module("likemlflow.monitor")
    with monkeypatch.context() as patch:
        patch.setattr(found, "OTHER", 2)
        assert found.OTHER == 2
    assert found.OTHER == 1
    assert found.SystemMetricsMonitor is monitor.SystemMetricsMonitor


def test_a_monitor_that_cannot_be_run_is_an_error_of_who_asks(package: Path) -> None:
    (package / "monitor.py").write_text(f"import nothing_like_it\n{CLASS}")
    monitor.install()
    found = importlib.import_module("likemlflow.monitor")
    assert found.SystemMetricsMonitor is monitor.SystemMetricsMonitor
    with pytest.raises(ImportError, match="nothing_like_it"):
        _ = found.OTHER


class Loading:
    """A daemon that is loaded when the test says so, and the attachments that are made with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_loaded = False
        self.jobs: list[Callable[[], None]] = []
        self.uri = "http://first"
        self.events: list[tuple[object, ...]] = []
        patch = monkeypatch.setattr
        patch(launch, "is_loaded", lambda: self.is_loaded)
        patch(launch, "is_pending", lambda: bool(self.jobs))
        patch(launch, "defer", self._defer)
        patch(launch, "wait", lambda _: not self.jobs)
        patch(clients, "import_mlflow", lambda: None)
        patch(fluent_state, "current_tracking_uri", lambda: self.uri)
        patch(fluent_state, "registered_monitors", dict)
        patch(process, "prepare", self._prepare)
        patch(process, "tell_engines", lambda *_: None)  # another test may have imported one

    def load(self) -> None:
        self.is_loaded = True
        while self.jobs:
            self.jobs.pop(0)()

    def _defer(self, job: Callable[[], None]) -> bool:
        self.jobs.append(job)
        return True

    def _prepare(self, run_id: str, uri: str, _: object) -> SimpleNamespace:
        def note(name: str) -> Callable[..., None]:
            return lambda *given, **more: self.events.append((name, *given[2:], *more.values()))

        self.events.append(("prepare", run_id, uri))
        return SimpleNamespace(
            **{name: note(name) for name in ("begin", "detach", "release", "offer_host_tags")}
        )


def test_the_run_is_attached_when_the_daemon_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loading = Loading(monkeypatch)
    monkeypatch.chdir(tmp_path)
    loading.uri = "sqlite:///runs.db"
    one = monitor.SystemMetricsMonitor("run")
    one.start()
    assert loading.events == []
    loading.uri = "http://second"  # of a later run
    monkeypatch.chdir("/")
    loading.load()
    assert loading.events[:2] == [("prepare", "run", f"sqlite:///{tmp_path}/runs.db"), ("begin", None)]
    one.finish()
    assert loading.events[-1] == ("detach",)


def test_a_run_that_ends_before_the_daemon_is_loaded_ends_after_it_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it has its points; its end waits no longer than the flush timeout."""
    loading = Loading(monkeypatch)
    one = monitor.SystemMetricsMonitor("run")
    one.start()
    one.finish()
    loading.load()
    assert [event[0] for event in loading.events] == ["prepare", "begin", "offer_host_tags", "detach"]
    assert loading.events[-1] == ("detach", 0)  # nobody waits any more


def test_a_run_whose_start_was_interrupted_is_not_attached_later(monkeypatch: pytest.MonkeyPatch) -> None:
    loading = Loading(monkeypatch)

    def interrupted(job: Callable[[], None]) -> bool:
        loading.jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "defer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        monitor.SystemMetricsMonitor("run").start()
    loading.load()
    assert loading.events == []


def test_a_run_whose_start_is_interrupted_while_it_is_attached_is_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading = Loading(monkeypatch)
    one = monitor.SystemMetricsMonitor("run")
    one.start()
    prepare = process.prepare
    monkeypatch.setattr(process, "prepare", lambda *given: (one._release(), prepare(*given))[1])
    loading.load()
    assert [event[0] for event in loading.events][-1] == "release"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ThreadUnavailable("no thread can be started: ..."), "no thread can be started"),
        (ImportError("No module named 'x'"), "No module named 'x'"),
        (MemoryError(), "MemoryError"),
        (JobTimeout("late"), "late"),
    ],
)
def test_a_run_that_cannot_be_attached_later_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    loading = Loading(monkeypatch)

    def fail(*_: object) -> None:
        raise error

    told: list[object] = []
    monkeypatch.setattr(process, "prepare", fail)
    monkeypatch.setattr(runs, "set_tags_now", lambda *given: told.append(given))
    monkeypatch.setattr(monitor, "_warned", set())
    one = monitor.SystemMetricsMonitor("run")
    one.start()
    loading.load()
    one.finish()
    (record,) = caplog.records
    assert f"System metrics are off: {type(error).__name__}: {error}" in record.message
    assert told == [("http://first", "run", {"sys.metrics": f"off: {reason}"})]
