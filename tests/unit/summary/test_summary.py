"""A summary of a run, and its figures as metrics."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.summary.run_statistics import RunStatistics, is_summarised
from mlflow_sysmetrics.summary.summary import (
    FIGURES,
    Summary,
    Surroundings,
    figures_of_metrics,
    figures_of_nodes,
)


def an_hour() -> RunStatistics:
    """Half of it at 0 %, half at 80 %, on one of two GPUs; the other is not used."""
    found = RunStatistics()
    for minute in range(60):
        found.add(
            {
                "cpu_utilization_percentage": 50.0,
                "system_memory_usage_percentage": minute,
                "process_cpu_percentage": 200.0,
                "process_memory_rss_megabytes": 1000.0 + minute,
                "cpu_energy_watt_hours": minute + 1.0,
                "gpu_0_utilization_percentage": 80.0 if minute % 2 else 0.0,
                "gpu_0_power_usage_watts": 300.0,
                "gpu_1_utilization_percentage": 0.0,
                "gpu_1_memory_usage_percentage": 1.0,
                "disk_usage_percentage": 3.0,
            },
            60,
        )
    return found


def test_figures_are_sums_means_and_peaks() -> None:
    figures = an_hour().summary().figures()
    assert figures == {
        "measured_hours": 1,
        "gpu_hours": 2,
        "gpu_utilization_mean_percentage": pytest.approx(20),
        "gpu_utilization_p95_percentage": pytest.approx(80, rel=0.02),
        "gpu_idle_percentage": pytest.approx(75),
        "gpu_memory_max_percentage": 1,
        "gpu_power_mean_watts": pytest.approx(300),
        "energy_watt_hours": pytest.approx(360),
        "cpu_core_hours": pytest.approx(2),
        "cpu_utilization_mean_percentage": pytest.approx(50),
        "cpu_utilization_p95_percentage": pytest.approx(50, rel=0.02),
        "memory_max_percentage": 59,
        "process_memory_max_megabytes": 1059,
    }
    assert set(figures) == {figure.name for figure in FIGURES}


def test_what_is_not_measured_is_absent() -> None:
    assert Summary().figures() == {"measured_hours": 0}
    found = RunStatistics()
    found.add({"cpu_utilization_percentage": 5.0}, 60)
    assert "gpu_hours" not in found.summary().figures()
    assert "energy_watt_hours" not in found.summary().figures()


def test_the_share_of_energy_that_is_not_measured_is_named() -> None:
    assert an_hour().summary().unmeasured_energy == ("GPU 1",)
    assert Summary().unmeasured_energy == ("CPU",)


def test_parts_are_merged_to_the_whole() -> None:
    first = an_hour()
    second = first.continued()
    second.add({"cpu_energy_watt_hours": 61.0, "gpu_0_utilization_percentage": 100.0}, 3600)
    assert second.summary().cpu_watt_hours == 1
    first.merge(second)
    whole = first.summary()
    assert whole.seconds == 7200
    assert whole.cpu_watt_hours == 61
    assert whole.gpus[0].utilization is not None
    assert whole.gpus[0].utilization.mean == pytest.approx(70)


@pytest.mark.parametrize("node", ["", "0", "rack-1/gpu-7"])
def test_figures_survive_as_metrics(node: str) -> None:
    summary = an_hour().summary(node)
    assert figures_of_metrics(summary.metrics()) == summary.figures()


def test_nodes_are_added_or_weighted() -> None:
    nodes = (
        {"gpu_hours": 1.0, "gpu_idle_percentage": 100.0, "memory_max_percentage": 20.0},
        {"gpu_hours": 3.0, "gpu_idle_percentage": 0.0, "memory_max_percentage": 90.0},
        {},
    )
    assert figures_of_nodes(nodes) == {
        "gpu_hours": 4,
        "gpu_idle_percentage": 25,
        "memory_max_percentage": 90,
    }


def test_other_metrics_are_no_figures() -> None:
    assert (
        figures_of_metrics({"system/cpu_utilization_percentage": 3, "system/summary/loss": 2, "loss": 1})
        == {}
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, Surroundings()),
        ({"sys.cpu_cores": "64", "sys.cpu_cores_effective": "8"}, Surroundings(cores=8, allocated=True)),
        ({"sys.cpu_cores": "64", "sys.cpu_cores_effective": "64"}, Surroundings(cores=64)),
        ({"sys.scheduler": "slurm", "sys.gpu_count": "2"}, Surroundings(allocated=True, gpus=2)),
        ({"sys.memory_limit_gb": "16"}, Surroundings(allocated=True)),
        ({"mlflow.source.name": "/usr/lib/ipykernel_launcher.py"}, Surroundings(interactive=True)),
        ({"mlflow.source.name": "colab_kernel_launcher.py"}, Surroundings(interactive=True)),
        ({"mlflow.source.type": "NOTEBOOK"}, Surroundings(interactive=True)),
        ({"sys.gpu": "NVIDIA A100 MIG 1g.5gb"}, Surroundings(gpus=1, mig=True)),
        ({"sys.gpu": "NVIDIA A100", "sys.gpu_count": "4"}, Surroundings(gpus=4)),
        ({"sys.gpu": "None", "sys.gpu_count": "0"}, Surroundings(gpus=0)),
        ({"sys.gpu": "None"}, Surroundings()),
        ({"sys.gpu_uuid": "MIG-5a2"}, Surroundings(mig=True)),
        ({"sys.cpu_cores": "many", "sys.gpu_count": ""}, Surroundings()),
    ],
)
def test_surroundings_are_read_from_tags(tags: dict[str, str], expected: Surroundings) -> None:
    assert Surroundings.of_tags(tags) == expected


def test_series_of_a_summary_are_known_by_name() -> None:
    assert is_summarised("gpu_11_utilization_percentage")
    assert is_summarised("io_pressure_percentage")
    assert not is_summarised("gpu_0_sm_clock_megahertz")
    assert not is_summarised("disk_usage_percentage")
