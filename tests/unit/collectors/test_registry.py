"""The registry: every entry matches its class, and only modules of available sources are imported."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors import CollectorEntry, presence, registry
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family
from recorded import build, every_host, revive

every_entry = pytest.mark.parametrize("entry", registry.LINUX, ids=lambda entry: entry.name)


@pytest.mark.parametrize(
    "entry", dict.fromkeys((*registry.LINUX, *registry.PORTABLE)), ids=lambda one: one.name
)
def test_a_registry_entry_has_the_name_and_family_of_its_class(entry: CollectorEntry) -> None:
    assert (entry.load().__name__, entry.load().family) == (entry.name, entry.family)


@every_host
def test_a_source_found_absent_before_import_gives_the_reason_of_its_collector(
    recorded: Path, tmp_path: Path
) -> None:
    host = revive(recorded, tmp_path / "root")
    for entry in registry.LINUX:
        assert_same_absence(entry, host)


@every_entry
def test_on_an_empty_machine_every_reason_is_that_of_the_collector(
    entry: CollectorEntry, tmp_path: Path
) -> None:
    missing = FakeNvml(init_error=FakeNvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found"))
    environments: tuple[dict[str, str], ...] = (
        {},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"NVIDIA_VISIBLE_DEVICES": "none"},
        {"HIP_VISIBLE_DEVICES": ""},
    )
    for environ, gpus in itertools.product(environments, ("visible", "all", "0")):
        host = Host(
            root=tmp_path, environ=environ, gpus=gpus, has_nvml=lambda: False, load_nvml=lambda: missing
        )
        assert_same_absence(entry, host)


def assert_same_absence(entry: CollectorEntry, host: Host) -> None:
    reason = entry.absence(host)
    if reason is not None:
        built = build(entry.load(), host)
        assert isinstance(built, Unavailable), (entry, host)
        assert reason == str(built), (entry, host)
        with pytest.raises(Unavailable, match=re.escape(reason)):
            entry(host)


def test_modules_of_absent_hardware_are_not_imported(tmp_path: Path) -> None:
    host = Host(root=tmp_path, environ={}, has_nvml=lambda: False)
    absent = {entry.name for entry in registry.LINUX if entry.absence(host)}
    assert absent == {
        "InfinibandLinux", "EnergyLinux", "Nvidia", "NvidiaProfile", "AmdLinux", "IntelLinux", "DrmClocks",
    }  # fmt: skip
    assert all(registry.resolve(entry, host) is entry for entry in registry.LINUX if entry.name in absent)


def test_a_stand_in_for_nvml_needs_no_driver(tmp_path: Path) -> None:
    host = Host(root=tmp_path, environ={}, load_nvml=FakeNvml)
    assert presence.no_nvidia_driver(host) is None


def test_bindings_that_the_program_has_loaded_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert presence.no_nvidia_driver(Host(root=tmp_path, environ={})) is None


def test_a_source_that_appears_later_is_imported(tmp_path: Path) -> None:
    entry = next(entry for entry in registry.LINUX if entry.name == "EnergyLinux")
    host = Host(root=tmp_path, environ={})
    building = registry.resolve(entry, host)
    with pytest.raises(Unavailable, match="no RAPL package"):
        building(host)
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, content in {"name": "package-0\n", "energy_uj": "1\n", "max_energy_range_uj": "9\n"}.items():
        (zone / name).write_text(content)
    assert isinstance(building(host), entry.load())
    assert registry.resolve(entry, host) is entry.load()


def test_a_look_for_a_source_that_hangs_is_left_to_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a driver library on a filesystem whose server is gone."""
    monkeypatch.setattr(registry, "_PRESENCE_SECONDS", 0.05)
    answers = threading.Event()

    def absence(host: Host) -> str | None:
        del host
        answers.wait(60)
        return None

    absent = CollectorEntry("energy_linux", "EnergyLinux", Family.ENERGY, lambda _: "absent")
    hanging = CollectorEntry("nvidia", "Nvidia", Family.GPU, absence)
    plain = CollectorEntry("cpu_linux", "CpuLinux", Family.CPU)
    builders = registry.resolve_all([absent, hanging, plain], Host())
    assert builders == [absent, hanging.load(), plain.load()]
    answers.set()


def test_a_failing_import_is_handled_by_the_guard() -> None:
    entry = CollectorEntry("no_such_module", "Missing", Family.CPU)
    assert registry.resolve(entry, Host()) is entry
    with pytest.raises(ImportError):
        entry(Host())


@every_host
def test_every_machine_has_a_readme(recorded: Path) -> None:
    assert re.search("Recorded|Constructed", (recorded / "README.md").read_text())


@pytest.mark.heavy
def test_probes_import_neither_other_systems_nor_absent_vendors(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from mlflow_sysmetrics.collectors.registry import LINUX, resolve
from mlflow_sysmetrics.machine.host import Host
host = Host(root=Path(sys.argv[1]), environ={}, has_nvml=lambda: False)
for entry in LINUX:
    resolve(entry, host)
prefix = "mlflow_sysmetrics.collectors."
found = {name.removeprefix(prefix) for name in sys.modules if name.startswith(prefix)}
unwanted = {name for name in found if name.startswith(("drm", "nv", "amd", "intel", "apple", "infiniband", "energy", "rapl"))}
assert not unwanted | {name for name in found if name.endswith("psutil")}, found
assert "psutil" not in sys.modules and "pynvml" not in sys.modules
assert len(found) <= 40, sorted(found)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
