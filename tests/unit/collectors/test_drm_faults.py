"""Files of AMD and Intel GPUs, damaged in the same ways as in `test_faults`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import test_faults
from drm_machine import card, machine, opens
from test_faults import DAMAGES, Damage, Machine, faults, read

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.amd_linux import AmdLinux
from mlflow_sysmetrics.collectors.drm_clocks_linux import DrmClocks
from mlflow_sysmetrics.collectors.intel_gpu_linux import IntelLinux
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.machine.host import Host
from recorded import HOSTS

pytestmark = pytest.mark.exhaustive

AMD = ("amd-radeon", "amd-mi250", "amd-mi300")
INTEL = ("intel-arc-i915", "intel-xe")
PAIRS = [
    (path, collector)
    for path in HOSTS
    for names, collector in ((AMD, AmdLinux), (INTEL, IntelLinux), (AMD + INTEL, DrmClocks))
    if path.name in names
]
EVERY_FAULT = (
    test_faults.test_a_damaged_file_harms_nothing,
    test_faults.test_a_vanished_file_harms_nothing,
    test_faults.test_an_unreadable_file_harms_no_other_collector,
    test_faults.test_counters_that_go_backwards_harm_nothing,
)
SLOT, NODE = "0000:03:00.0", "/dev/dri/renderD128"
I915 = (
    "drm-driver:\ti915",
    f"drm-pdev:\t{SLOT}",
    "drm-client-id:\t7",
    "drm-engine-render:\t{} ns",
    "drm-engine-capacity-render:\t2",
    "drm-resident-local0:\t4 MiB",
)
XE = (
    "drm-driver:\txe",
    f"drm-pdev:\t{SLOT}",
    "drm-client-id:\t7",
    "drm-cycles-ccs:\t{}",
    "drm-total-cycles-ccs:\t{}",
    "drm-resident-vram0:\t4096 KiB",
)
AMDGPU = (
    "drm-driver:\tamdgpu",
    f"drm-pdev:\t{SLOT}",
    "drm-client-id:\t7",
    "drm-memory-vram:\t4096 KiB",
    "drm-engine-compute:\t{} ns",
)

every_pair = pytest.mark.parametrize(
    ("recorded", "collector"), PAIRS, ids=[f"{path.name}-{collector.__name__}" for path, collector in PAIRS]
)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Machine]:
    """The machines to damage, built once: each test restores them."""
    paths = {path for path, _ in PAIRS}
    return {path: Machine(path, tmp_path_factory.mktemp(path.name) / "root") for path in paths}


@pytest.fixture(autouse=True)
def cpu_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents ticks from being cut short because the test machine is slow."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)


@pytest.mark.slow
@every_pair
@pytest.mark.parametrize("fault", EVERY_FAULT, ids=lambda fault: fault.__name__)
def test_a_damaged_file_harms_nothing(
    recorded: Path,
    collector: type[Collector],
    fault: Callable[[Path, type[Collector], dict[Path, Machine]], None],
    machines: dict[Path, Machine],
) -> None:
    fault(recorded, collector, machines)


@every_pair
def test_a_clock_that_goes_backwards_or_stands_still_harms_nothing(
    recorded: Path, collector: type[Collector], machines: dict[Path, Machine]
) -> None:
    for seconds in ((10, 11, 5, 6, 7), (10, 10, 10, 11, 12), (10, 11, 11, 10.9, 12), (1e9, 5, 6, 7)):
        test_faults.test_a_clock_that_goes_backwards_or_stands_still_harms_nothing(
            recorded, collector, seconds, machines
        )


@every_pair
def test_a_file_without_permission_harms_nothing(recorded: Path, collector: type[Collector]) -> None:
    with (
        tempfile.TemporaryDirectory() as directory
    ):  # accessible to every user, unlike the directories of pytest
        Path(directory).chmod(0o755)
        test_faults.test_a_file_without_permission_harms_nothing(
            collector, Machine(recorded, Path(directory) / "root")
        )


@pytest.fixture(params=["i915", "xe", "amdgpu"])
def using(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[type[Collector], Host, list[str]]:
    """A machine with a card and a process that uses it, and its fdinfo after 0, 5, 10, ... seconds."""
    driver = request.param
    lines = {"i915": I915, "xe": XE, "amdgpu": AMDGPU}[driver]
    vendor, collector = ("0x1002", AmdLinux) if driver == "amdgpu" else ("0x8086", IntelLinux)
    sensor = "sys/class/drm/card0/device/hwmon/hwmon1/temp{}_input".format(2 if driver == "xe" else 1)
    host = machine(tmp_path, card(SLOT, f"{vendor}\n", driver), {sensor: "50000\n"})
    texts = [
        "".join(f"{line.format(10**9 * step, 2 * 10**9 * step)}\n" for line in lines) for step in (1, 2, 3, 4)
    ]
    return collector, host, texts


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_fdinfo_of_our_processes_harms_nothing(
    using: tuple[type[Collector], Host, list[str]], damage: Damage
) -> None:
    collector, host, texts = using
    opens(host.root, 9, NODE)
    file = host.root / "proc/self/fdinfo/9"
    probe = Probe(collector, host)
    readings = []
    for step, text in enumerate(texts):
        content = damage(text.encode()) if step in (1, 2) else text.encode()
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        readings.append(read(probe, 5.0 * step))
    assert not [*faults(readings, collector)]
    assert all("gpu_0_temperature_celsius" in {one.key for one in reading.samples} for reading in readings)
    held = [one.value for one in readings[-1].samples if one.key == "gpu_0_process_memory_megabytes"]
    assert held == [4.194304]


@pytest.mark.parametrize("text", ["0\n", "-5\n", "99999999999999999999\n", "", "x\n", "5e5\n", "nan\n"])
def test_a_card_with_an_invalid_identity_is_still_read(tmp_path: Path, text: str) -> None:
    files = {
        "sys/class/drm/card0/device/unique_id": text,
        "sys/class/drm/card0/device/gpu_busy_percent": "7\n",
    }
    host = machine(tmp_path, card(SLOT, "0x1002\n", "amdgpu"), files)
    assert [sample.value for sample in AmdLinux(host).collect(0.0)] == [7]
