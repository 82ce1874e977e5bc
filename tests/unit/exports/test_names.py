"""Names and units for others: complete, distinct, and those of the semantic conventions where they have one."""

from __future__ import annotations

import inspect
import re

import pytest
from ticking import Bench, every_key

from mlflow_sysmetrics.exports.names import EXPORTED, UNDER_LIMIT, Exported, exported
from mlflow_sysmetrics.exports.readings import METRICS
from mlflow_sysmetrics.samples import TOTALS

ALL = [*EXPORTED.values(), *UNDER_LIMIT.values()]
GROUPS = ("container", "hw", "process", "system")


def conventions() -> dict[str, tuple[str, str]]:
    """Returns instrument and unit of each name that the installed conventions have."""
    found: dict[str, tuple[str, str]] = {}
    for group in GROUPS:
        module = pytest.importorskip(
            f"opentelemetry.semconv._incubating.metrics.{group}_metrics", reason="MLflow 2 does not bring it"
        )
        text = inspect.getsource(module)
        for name, about in re.findall(
            r'^[A-Z_]+: Final = "([^"]+)"\n"""\n(.*?)"""', text, re.MULTILINE | re.DOTALL
        ):
            instrument, unit = re.search(r"Instrument: (\w+)", about), re.search(r"Unit: (\S+)", about)
            if instrument and unit:
                found[name] = instrument[1], unit[1]
    return found


def test_each_metric_has_a_name_elsewhere() -> None:
    assert EXPORTED.keys() == {metric.name for metric in METRICS}
    assert UNDER_LIMIT.keys() <= EXPORTED.keys()


def test_totals_are_counters_and_nothing_else_is() -> None:
    for metric in METRICS:
        assert (EXPORTED[metric.name].instrument == "counter") == (metric.kind in TOTALS), metric.name


def test_names_of_the_conventions_have_their_units_and_instruments() -> None:
    known = conventions()
    wrong = [
        (one.name, one.instrument, one.unit, known.get(one.name))
        for one in ALL
        if not one.extension
        if known.get(one.name) != (one.instrument, one.unit)
    ]
    assert wrong == []


def test_extensions_are_in_the_groups_of_the_conventions_and_not_in_them() -> None:
    known = conventions()
    for one in ALL:
        assert one.name.partition(".")[0] in GROUPS
        assert one.extension != (one.name in known), one.name


def test_no_two_metrics_are_one_series_elsewhere() -> None:
    seen: dict[tuple[object, ...], str] = {}
    for name, one in EXPORTED.items():
        if name.startswith("host_"):  # those of the host, where the job's own have other names
            continue
        key = one.prometheus, *sorted(one.attributes.items()), one.device
        assert key not in seen, (name, seen[key])
        seen[key] = name


def test_one_name_has_one_unit_and_one_set_of_attributes() -> None:
    families: dict[str, set[tuple[object, ...]]] = {}
    for one in ALL:
        shape = (one.unit, one.instrument, frozenset({*one.attributes, one.device} - {""}))
        families.setdefault(one.name, set()).add(shape)
    assert {name: shapes for name, shapes in families.items() if len(shapes) > 1} == {}


@pytest.mark.parametrize(
    ("name", "prometheus"),
    [
        ("cpu_utilization_percentage", "system_cpu_utilization_ratio"),
        ("process_cpu_percentage", "process_cpu_usage"),
        ("network_receive_megabytes", "system_network_io_bytes_total"),
        ("gpu_{i}_energy_watt_hours", "hw_energy_joules_total"),
        ("gpu_{i}_power_usage_watts", "hw_power_watts"),
        ("gpu_{i}_temperature_celsius", "hw_temperature_celsius"),
        ("disk_read_megabytes_per_second", "system_disk_io_rate_bytes_per_second"),
        ("process_threads", "process_threads"),
        ("gpu_{i}_ecc_errors", "hw_errors_total"),
    ],
)
def test_names_in_prometheus(name: str, prometheus: str) -> None:
    assert EXPORTED[name].prometheus == prometheus


def values(**given: float) -> dict[str, float]:
    bench = Bench()
    bench.sampler.tick(given)
    return {one.exported.name: one.value for one in exported(bench.source.snapshot())}


def test_values_are_in_base_units() -> None:
    found = values(
        cpu_utilization_percentage=50,
        process_cpu_percentage=250,
        system_memory_usage_megabytes=1.5,
        cpu_energy_watt_hours=2,
        gpu_0_sm_clock_megahertz=1980,
        gpu_0_temperature_celsius=61,
    )
    assert found == {
        "system.cpu.utilization": 0.5,
        "process.cpu.usage": 2.5,
        "system.memory.usage": 1_500_000,
        "hw.energy": 7200,
        "hw.gpu.speed": 1.98e9,
        "hw.temperature": 61,
    }


def test_a_limited_job_is_a_container_and_the_host_the_system() -> None:
    found = values(
        cpu_utilization_percentage=90,
        host_cpu_utilization_percentage=10,
        system_memory_usage_megabytes=4,
        system_memory_usage_percentage=80,
        host_memory_usage_percentage=20,
        memory_available_megabytes=1,
    )
    assert found == {
        "container.cpu.utilization": 0.9,
        "system.cpu.utilization": pytest.approx(0.1),
        "container.memory.working_set": 4e6,
        "container.memory.utilization": 0.8,
        "system.memory.utilization": 0.2,
        "container.memory.available": 1e6,
    }


def test_a_key_that_is_not_ours_is_left_out() -> None:
    assert values(tape_robot_arms=3.0) == {}


def test_devices_are_attributes() -> None:
    bench = Bench()
    bench.sampler.tick({"gpu_11_power_usage_watts": 300.0, "disk_data_usage_megabytes": 1.0})
    gpu, disk = exported(bench.source.snapshot())
    assert gpu.attributes == {"hw.type": "gpu", "hw.id": "11"}
    assert disk.attributes == {"system.filesystem.name": "data", "system.filesystem.state": "used"}


def test_a_meaning_does_not_speak_of_a_run() -> None:
    bench = Bench()
    bench.sampler.tick(every_key())
    found = list(exported(bench.source.snapshot()))
    assert len(found) == len(every_key())
    assert not [one for one in found if "attached" in one.meaning]


def test_an_exported_name_is_data() -> None:
    assert hash(Exported("a", "1", attributes=()))  # type: ignore[arg-type] # frozen
