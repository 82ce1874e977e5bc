"""GPU clients of the job's processes: ownership, device, reading interval and formats of drivers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drm_machine import OWN, card, machine, opens, stat
from small_machines import values

from mlflow_sysmetrics.collectors.drm.cards import ComputeDevice, parse_properties
from mlflow_sysmetrics.collectors.drm.clients import ClientKey, DrmClients, parse_fdinfo
from mlflow_sysmetrics.collectors.drm.hwmon import reading, why_silent
from mlflow_sysmetrics.collectors.drm_clocks_linux import DrmClocks
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

NODE = "/dev/dri/renderD128"
LINES = ("drm-driver: amdgpu", "drm-client-id: 1", "drm-memory-vram: 4 KiB")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A machine with one child, where reading takes no time."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    return machine(tmp_path, {"proc/8001/stat": stat(8001, OWN), "proc/9000/stat": stat(9000, 1)})


def test_a_client_shared_by_two_processes_counts_once(host: Host) -> None:
    opens(host.root, 4, NODE, *LINES)
    opens(host.root, 5, NODE, *LINES)
    opens(host.root, 4, NODE, *LINES, process=8001)
    assert DrmClients(host).read(0).keys() == {ClientKey("renderD128", 1)}  # type: ignore[union-attr]


def test_equal_client_ids_on_two_gpus_are_two_clients(host: Host) -> None:
    opens(host.root, 4, NODE, *LINES, "drm-pdev: 0000:03:00.0")
    opens(host.root, 5, NODE, *LINES, "drm-pdev: 0000:04:00.0")
    assert len(DrmClients(host).read(0) or ()) == 2


def test_clients_of_a_child_count(host: Host) -> None:
    opens(host.root, 4, NODE, *LINES, process=8001)
    assert len(DrmClients(host).read(0) or ()) == 1


def test_clients_of_other_processes_do_not_count(host: Host) -> None:
    opens(host.root, 4, NODE, *LINES, process=9000)
    assert DrmClients(host).read(0) == {}


def test_only_gpu_files_are_read(host: Host) -> None:
    opens(host.root, 4, "/srv/data", *LINES)
    assert DrmClients(host).read(0) == {}


def test_a_file_closed_during_the_scan_is_skipped(host: Host) -> None:
    opens(host.root, 4, NODE, *LINES)
    opens(host.root, 5, NODE, *LINES)
    (host.root / "proc/self/fdinfo/4").unlink()
    assert len(DrmClients(host).read(0) or ()) == 1


def test_clients_are_read_every_five_seconds(host: Host) -> None:
    clients = DrmClients(host)
    assert [clients.read(now) is None for now in (0, 1, 4, 5, 6, 10)] == [
        False,
        True,
        True,
        False,
        True,
        False,
    ]


def test_a_long_scan_continues_at_the_next_tick(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(host.root, 4, NODE, *LINES)
    clients = DrmClients(host)
    clock = iter(number * 1e-3 for number in range(1000))  # each reading takes a millisecond
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    assert clients.read(0) is None  # this process; then the child, once the CPU budget allows
    assert clients.read(0.001) is None
    assert len(clients.read(100) or ()) == 1


def test_an_unreadable_process_tree_keeps_its_last_state(host: Host) -> None:
    opens(host.root, 4, NODE, *LINES)
    clients = DrmClients(host)
    (host.root / "proc/self/stat").write_text("")
    assert len(clients.read(0) or ()) == 1


def test_without_its_own_process_in_proc_it_is_unavailable(host: Host) -> None:
    (host.root / "proc/self/stat").unlink()
    with pytest.raises(Unavailable, match="this process cannot be read"):
        DrmClients(host)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"pos:\t0\nflags:\t0100002\n",
        b"drm-driver: i915\n",
        b"drm-client-id: 5\n",
        b"drm-driver: i915\ndrm-client-id: 5",  # truncated
        b"drm-driver: i915\ndrm-client-id: -5\n",
        b"drm-driver: i915\ndrm-client-id: " + b"9" * 5000 + b"\n",
        b"drm-driver: i915\ndrm-client-id: \xff\n",
        "drm-driver: i915\ndrm-client-id: ²\n".encode(),
    ],
)
def test_text_that_does_not_describe_a_client_is_rejected(text: bytes) -> None:
    assert parse_fdinfo(text) is None


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (b"drm-memory-vram: 5\n", 5),
        (b"drm-memory-vram:\t2 KiB\n", 2048),
        (b"drm-memory-vram: 2 MiB\n", 2 * 1024**2),
        (b"drm-memory-vram: 2 GiB\n", None),  # not a documented unit
        (b"drm-memory-vram: two\n", None),
        (b"drm-total-vram: 9\ndrm-resident-vram: 5\ndrm-memory-vram: 7\n", 5),
        (b"drm-total-vram: 9\n", 9),
    ],
)
def test_parses_the_memory_of_a_client(lines: bytes, size: int | None) -> None:
    found = parse_fdinfo(b"drm-driver: amdgpu\ndrm-client-id: 1\n" + lines)
    assert found is not None
    assert found.memory.get("vram") == size


def test_a_missing_or_zero_capacity_counts_as_one_engine() -> None:
    found = parse_fdinfo(
        b"drm-driver: i915\ndrm-client-id: 1\ndrm-engine-copy: 5 ns\ndrm-engine-capacity-copy: 0\n"
    )
    assert found is not None
    assert (found.busy, found.capacity) == ({"copy": 5}, {})


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (
            b"simd_count 152\ndrm_render_minor 128\nunique_id 13321655985203289421\n",
            ComputeDevice("renderD128", "GPU-b8e0078991ff9d4d"),
        ),
        (b"simd_count 152\ndrm_render_minor 129\nunique_id 0\n", ComputeDevice("renderD129", "")),
        (b"cpu_cores_count 64\nsimd_count 0\ndrm_render_minor 0\n", None),
    ],
)
def test_parses_a_kfd_node(text: bytes, device: ComputeDevice | None) -> None:
    assert parse_properties(text) == device


def test_the_reason_for_missing_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    assert why_silent(str(tmp_path / "missing")) == "not supported by this device"
    assert why_silent(str(tmp_path / "directory")) == "Is a directory"
    assert reading("") is None


def test_a_missing_permission_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("mlflow_sysmetrics.collectors.drm.hwmon.read_short", refuse)
    assert why_silent("/sys/file") == "no permission"


def test_the_clock_of_driver_radeon_has_no_label(tmp_path: Path) -> None:
    files = {"name": "radeon\n", "freq1_input": "350000000\n", "temp1_input": "30000\n"}
    hwmon = {f"sys/class/drm/card0/device/hwmon/hwmon3/{name}": text for name, text in files.items()}
    host = machine(tmp_path, card("0000:01:00.0", "0x1002\n", "radeon"), hwmon)
    assert values(DrmClocks(host), 0) == {"gpu_0_sm_clock_megahertz": 350}


def test_clocks_are_read_for_all_vendors(tmp_path: Path) -> None:
    device = "sys/class/drm/card{}/device"
    host = machine(
        tmp_path,
        card("0000:03:00.0", "0x1002\n", "amdgpu", name="card0"),
        card("0000:04:00.0", "0x8086\n", "i915", name="card1"),
        card("0000:05:00.0", "0x8086\n", "xe", name="card2"),
        {f"{device.format(number)}/hwmon/hwmon1/name": "it\n" for number in (1, 2)},
        {
            f"{device.format(0)}/hwmon/hwmon1/freq1_input": "2371000000\n",
            f"{device.format(0)}/hwmon/hwmon1/freq1_label": "sclk\n",
            f"{device.format(0)}/hwmon/hwmon1/freq2_input": "1249000000\n",
            f"{device.format(0)}/hwmon/hwmon1/freq2_label": "mclk\n",
            "sys/class/drm/card1/gt_act_freq_mhz": "2400\n",
            f"{device.format(2)}/tile0/gt0/freq0/act_freq": "2800\n",
        },
    )
    assert values(DrmClocks(host), 0) == pytest.approx(
        {
            "gpu_0_sm_clock_megahertz": 2371,
            "gpu_0_memory_clock_megahertz": 1249,
            "gpu_1_sm_clock_megahertz": 2400,
            "gpu_2_sm_clock_megahertz": 2800,
        }
    )


@pytest.mark.parametrize(
    ("text", "status"),
    [("65535\n", "active\n"), ("", "active\n"), ("0\n", "active\n"), ("2400\n", "suspended\n")],
)
def test_an_unreported_clock_is_absent(tmp_path: Path, text: str, status: str) -> None:
    host = machine(
        tmp_path,
        card("0000:04:00.0", "0x8086\n", "i915"),
        {
            "sys/class/drm/card0/gt_act_freq_mhz": text,
            "sys/class/drm/card0/device/power/runtime_status": status,
            "sys/class/drm/card0/device/hwmon/hwmon1/name": "i915\n",
        },
    )
    assert values(DrmClocks(host), 0) == {}


CLOCKED = {"sys/class/drm/card0/gt_act_freq_mhz": "600\n"}


@pytest.mark.parametrize(
    ("sensors", "gpus"), [({}, "visible"), ({"sys/class/drm/card0/device/hwmon/hwmon1/name": ""}, "process")]
)
def test_a_clock_is_shown_only_while_the_job_uses_a_gpu(
    tmp_path: Path, sensors: dict[str, str], gpus: str
) -> None:
    """Applies to a GPU with no other series, and to every GPU if the user selects those the job uses."""
    host = machine(tmp_path, card("0000:00:02.0", "0x8086\n", "i915"), CLOCKED, sensors, gpus=gpus)
    collector = DrmClocks(host)
    assert values(collector, 0) == {}
    opens(tmp_path, 4, NODE, "drm-driver: i915", "drm-client-id: 1", "drm-resident-system0: 4 KiB")
    assert values(collector, 5) == {"gpu_0_sm_clock_megahertz": 600}


def test_a_clock_that_a_card_lacks_is_a_gap(tmp_path: Path) -> None:
    hwmon = "sys/class/drm/card0/device/hwmon/hwmon1"
    host = machine(
        tmp_path,
        card("0000:03:00.0", "0x1002\n", "amdgpu"),
        {f"{hwmon}/freq1_input": "5000000\n", f"{hwmon}/freq1_label": "sclk\n"},
    )
    assert DrmClocks(host).gaps == (
        "gpu_0: no memory clock: not supported by this device",
        "gpu_0: no memory utilization: not supported by this device",
    )


@pytest.mark.parametrize(("text", "value"), [("41\n", 41), ("0\n", 0), ("65535\n", None), ("what?\n", None)])
def test_memory_is_as_busy_as_the_driver_says(tmp_path: Path, text: str, value: float | None) -> None:
    busy = {"sys/class/drm/card0/device/mem_busy_percent": text}
    host = machine(tmp_path, card("0000:03:00.0", "0x1002\n", "amdgpu"), busy)
    found = {sample.key: sample.value for sample in DrmClocks(host).collect(0.0)}
    assert found == ({} if value is None else {"gpu_0_memory_utilization_percentage": value})


def test_cards_without_clocks_are_unavailable(tmp_path: Path) -> None:
    host = machine(tmp_path, card("0000:04:00.0", "0x8086\n", "i915"))
    with pytest.raises(Unavailable, match="no AMD GPU in /sys/class/drm"):
        DrmClocks(host)
