"""The sections of `doctor` about the installation, this machine, and the journals."""

from __future__ import annotations

import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from orphaned import living, orphan

from fakes import FakeClock, Scripted, scripted
from mlflow_sysmetrics.cli import installed, this_machine, waiting_points
from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.providers import SysMetricsDaemonRunContextProvider, SysMetricsRunContextProvider
from mlflow_sysmetrics.samples import Family
from mlflow_sysmetrics.settings import Settings

ENTRY_POINTS = [
    EntryPoint(name, f"mlflow_sysmetrics.providers:{kind.__name__}", "mlflow.run_context_provider")
    for name, kind in (
        ("sysmetrics", SysMetricsRunContextProvider),
        ("sysmetrics_daemon", SysMetricsDaemonRunContextProvider),
    )
]


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


def mlflow(
    *, version: str = "3.17.2", providers: tuple[type, ...] = (), monitor: str = "mlflow_sysmetrics.monitor"
) -> Any:
    """Returns an import function for a fake MLflow with these providers and this monitor."""
    built = [kind.__new__(kind) for kind in providers]  # their constructors would need a real MLflow
    modules: dict[str, object] = {
        "mlflow": SimpleNamespace(__version__=version),
        "mlflow.tracking.context.registry": SimpleNamespace(
            _run_context_provider_registry=SimpleNamespace(_registry=built)
        ),
        "mlflow.system_metrics.system_metrics_monitor": SimpleNamespace(
            SystemMetricsMonitor=type("SystemMetricsMonitor", (), {"__module__": monitor})
        ),
    }
    return modules.__getitem__


BOTH = (SysMetricsRunContextProvider, SysMetricsDaemonRunContextProvider)


def installation(
    load: Any, settings: Settings | None = None, points: Any = ENTRY_POINTS
) -> dict[str, Finding]:
    return by_name(installed.findings(settings or Settings(), load=load, registered=points, required=()))


def test_working_providers_and_hook_are_good() -> None:
    found = installation(mlflow(providers=BOTH))
    assert {one.mark for one in found.values()} == {Mark.GOOD}


def test_an_mlflow_that_cannot_be_imported_is_wrong() -> None:
    def load(name: str) -> ModuleType:
        raise AttributeError(f"{name} needs another SQLAlchemy\nand more")

    found = installation(load)["MLflow"]
    assert found.mark is Mark.WRONG
    assert found.text == "cannot be imported: AttributeError: mlflow needs another SQLAlchemy"


def test_a_missing_dependency_is_named_with_its_remedy() -> None:
    required = ("click>=8.0", "no-such-package>=1 ; python_version>='3'", 'rich>=13 ; extra == "cli"')
    found = installed.findings(
        Settings(), load=mlflow(providers=BOTH), registered=ENTRY_POINTS, required=required
    )
    (dependencies,) = [one for one in found if one.name == "dependencies"]
    assert (dependencies.text, dependencies.remedy) == (
        "not installed: no-such-package",
        "pip install no-such-package",
    )


def test_a_missing_entry_point_is_wrong() -> None:
    found = installation(mlflow(providers=BOTH), points=ENTRY_POINTS[1:])["Tags provider"]
    assert (found.mark, found.text) == (
        Mark.WRONG,
        "no entry point sysmetrics in mlflow.run_context_provider",
    )


def test_a_provider_that_cannot_be_loaded_is_wrong() -> None:
    broken = EntryPoint("sysmetrics", "mlflow_sysmetrics.gone:Provider", "mlflow.run_context_provider")
    found = installation(mlflow(providers=BOTH), points=[broken, ENTRY_POINTS[1]])["Tags provider"]
    assert found.mark is Mark.WRONG
    assert "ModuleNotFoundError" in found.text


def test_a_provider_that_mlflow_does_not_use_is_wrong() -> None:
    found = installation(mlflow(providers=BOTH[:1]))["Metrics provider"]
    assert found.mark is Mark.WRONG
    assert "does not use it" in found.text


def test_a_monitor_that_is_not_ours_is_wrong() -> None:
    found = installation(mlflow(providers=BOTH, monitor="mlflow.system_metrics.system_metrics_monitor"))
    assert found["Metrics hook"].mark is Mark.WRONG


def test_an_mlflow_without_system_metrics_is_a_note() -> None:
    found = installation(mlflow(providers=BOTH, version="2.7.1"))["Metrics hook"]
    assert (found.mark, found.remedy) == (Mark.NOTE, "for metrics: pip install 'mlflow>=2.8'")


@pytest.mark.parametrize("changed", [{"providers": False}, {"metrics": False}])
def test_what_the_user_switched_off_is_absent(changed: dict[str, bool]) -> None:
    found = installation(mlflow(providers=BOTH), Settings(**changed))["Metrics hook"]  # type: ignore[arg-type]
    assert found.mark is Mark.ABSENT
    assert "MLFLOW_" in found.text


FACTS: Any = SimpleNamespace(tags=lambda **_: {"sys.cpu": "a", "sysmetrics.error": "gpu: no answer"})


def machine(*collectors: type[Scripted], settings: Settings | None = None) -> dict[str, Finding]:
    clock = FakeClock()
    return by_name(
        this_machine.findings(
            settings or Settings(), host=Host(), collectors=collectors, facts=FACTS, pause=clock.move
        )
    )


def named(name: str, kind: type[Scripted], **changes: object) -> type[Scripted]:
    return type(name, (kind,), changes)


def test_a_collector_that_hangs_is_a_fault_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "HANGS_SECONDS", 0.05)
    answers = threading.Event()

    def wait(self: Scripted, host: Host) -> None:
        del self, host
        answers.wait(60)

    hanging = named("Hanging", scripted(), __init__=wait)
    found = machine(hanging, scripted(level=1.0))
    answers.set()
    assert found["Hanging"].mark is Mark.WRONG
    assert found["Hanging"].text == "hanging: no answer for over 5 s"
    assert found["Scripted"].mark is Mark.GOOD


def test_a_working_collector_counts_its_metrics() -> None:
    found = machine(scripted(level=1.0, share=2.0))["Scripted"]
    assert (found.mark, found.text) == (Mark.GOOD, "2 metrics of cpu")
    assert found.more["series"] == ["system/level_megabytes", "system/share_percentage"]


def test_metrics_of_the_second_reading_count() -> None:
    class Rate(Scripted):
        def collect(self, now: float) -> Any:
            if hasattr(self, "last"):
                yield self.metrics[1].sample(now)
            self.last = now

    assert machine(Rate)["Rate"].text == "1 metric of cpu"


def test_gaps_of_a_collector_are_shown() -> None:
    found = machine(named("Lacking", scripted(level=1.0), gaps=("gpu_0 power: no permission",)))["Lacking"]
    assert (found.mark, found.text) == (
        Mark.GOOD,
        "1 metric of cpu; not available: gpu_0 power: no permission",
    )


def test_an_unavailable_source_is_absent_with_its_reason() -> None:
    found = machine(named("Gone", scripted(), error=Unavailable("no driver")))["Gone"]
    assert (found.mark, found.text) == (Mark.ABSENT, "not available: no driver")


def test_a_failing_collector_is_wrong_and_can_be_excluded() -> None:
    found = machine(named("Broken", scripted(), error=ValueError("7")))["Broken"]
    assert (found.mark, found.text) == (Mark.WRONG, "failing: ValueError: 7")
    assert found.remedy is not None
    assert "MLFLOW_SYSMETRICS_COLLECTORS=-cpu" in found.remedy


def test_an_excluded_family_is_not_opened() -> None:
    kind = scripted(level=1.0)
    found = machine(kind, settings=Settings(collectors=frozenset({Family.DISK})))["Scripted"]
    assert (found.mark, kind.built) == (Mark.ABSENT, 0)


def test_an_opt_in_family_says_how_to_enable_it() -> None:
    found = machine(named("Fabric", scripted(), family=Family.FABRIC))["Fabric"]
    assert found.text == "only with MLFLOW_SYSMETRICS_COLLECTORS=+fabric"


def test_unknown_facts_are_shown_with_the_tags() -> None:
    assert machine()["sys.* tags"].text == "1 fact on every run; unknown: gpu: no answer"


def journals(directory: Path, **changes: Any) -> dict[str, Finding]:
    return by_name(waiting_points.findings(Settings(spool_dir=str(directory), **changes)))


def test_points_of_a_dead_process_are_a_note(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    found = journals(tmp_path)["left behind"]
    assert (found.mark, found.remedy) == (Mark.NOTE, "mlflow-sysmetrics sync")
    assert found.text.startswith("3 points of 1 process, the oldest ")


def test_a_run_without_process_and_points_names_reap(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3)
    journal.acknowledge(0, 3)
    journal.close(delete=False)
    assert journals(tmp_path)["left behind"].remedy == "mlflow-sysmetrics reap"


def test_points_of_a_living_process_are_not_left_behind(tmp_path: Path) -> None:
    journal: Journal = living(tmp_path, "run-1", 3)
    try:
        found = journals(tmp_path)
    finally:
        journal.close(delete=True)
    assert found["running"].text == "1 process, with 3 points to deliver"
    assert found["left behind"].mark is Mark.GOOD


def test_a_directory_that_can_be_created_is_good_and_not_created(tmp_path: Path) -> None:
    assert journals(tmp_path / "to" / "come")["directory"].mark is Mark.GOOD
    assert not (tmp_path / "to").exists()


def test_a_file_in_the_way_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    found = journals(tmp_path / "spool" / "journals")["directory"]
    assert (found.mark, found.text) == (
        Mark.WRONG,
        f"{tmp_path / 'spool'} is not a directory: points wait in memory only",
    )


def test_disabled_journals_are_absent() -> None:
    assert by_name(waiting_points.findings(Settings(spool_dir="off")))["directory"].mark is Mark.ABSENT


def job_of(**environ: str) -> dict[str, Finding]:
    given = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_NODES": "2",
    }
    host = Host(environ=given | environ)
    found = this_machine.findings(Settings(), host=host, collectors=(), facts=FACTS, pause=lambda _: None)
    return by_name(found)


def test_the_job_is_one_line_with_the_keys_that_it_makes() -> None:
    found = job_of(SLURM_NODEID="1")["job"]
    assert (found.mark, found.text) == (
        Mark.GOOD,
        "slurm 7: rank 2 of 4, node 1 of 2; keys begin with system/node_1/",
    )
    assert "keys begin with system/node_2/" in job_of()["job"].text


def test_variables_of_a_job_that_are_not_understood_are_faults() -> None:
    found = job_of(
        MLFLOW_SYSMETRICS_CLUSTER="yes", MLFLOW_SYSMETRICS_ATTACH="run", MLFLOW_SYSMETRICS_NODE_NAMES="ip"
    )
    wrong = {name: one.text for name, one in found.items() if one.mark is Mark.WRONG}
    assert wrong == {
        "MLFLOW_SYSMETRICS_CLUSTER": "'yes' is ignored: it must be auto or off",
        "MLFLOW_SYSMETRICS_ATTACH": "'run' is ignored: it must be env",
        "MLFLOW_SYSMETRICS_NODE_NAMES": "'ip' is ignored: it must be rank or host",
    }
