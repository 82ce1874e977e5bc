"""Settings: the variables they are read from, and what happens to invalid values."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mlflow_sysmetrics import settings
from mlflow_sysmetrics.errors import SettingsError, SysMetricsError
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family
from mlflow_sysmetrics.settings import Settings


def read(**environ: str) -> Settings:
    """Returns the settings of an environment that has only these variables."""
    return Settings.from_environ(environ)


def test_defaults() -> None:
    assert read() == Settings()
    assert Settings().window_seconds == 10


def test_an_empty_variable_is_an_unset_one(caplog: pytest.LogCaptureFixture) -> None:
    names = [getattr(settings, name) for name in ("PROVIDERS", "METRICS", "SAMPLING_INTERVAL", "COLLECTORS")]
    assert read(**dict.fromkeys(names, " ")) == Settings()
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("sysmetrics", True),
        ("git, sysmetrics", True),
        ("none", False),
        ("sysmetrics_daemon", False),
        ("", True),
    ],
)
def test_the_list_of_providers_must_name_us(value: str, wanted: bool) -> None:
    assert read(MLFLOW_RUN_CONTEXT_PROVIDER=value).providers is wanted


@pytest.mark.parametrize("value", ["false", "0", "False", "off", "no"])
def test_switches_are_on_unless_switched_off(value: str) -> None:
    assert read(MLFLOW_SYSMETRICS_TAGS=value).tags is False
    assert read(MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=value).metrics is False


@pytest.mark.parametrize(
    ("environ", "interval", "samples"),
    [
        ({}, 1, 10),
        ({"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5"}, 5, 1),
        ({"MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "3"}, 10, 3),
        (
            {
                "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.5",
                "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "4",
            },
            0.5,
            4,
        ),
    ],
)
def test_one_of_the_two_alone_has_the_meaning_it_has_in_mlflow(
    environ: dict[str, str], interval: float, samples: int
) -> None:
    found = Settings.from_environ(environ)
    assert (found.sampling_interval, found.samples_before_logging) == (interval, samples)


def test_the_environment_overrides_code_as_in_mlflow() -> None:
    environ = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "2", "MLFLOW_SYSTEM_METRICS_NODE_ID": "a"}
    found = Settings.from_environ(environ, sampling_interval=7, samples_before_logging=3, node_id="b")
    assert (found.sampling_interval, found.samples_before_logging, found.node_id) == (2, 3, "a")


INTERVAL, SAMPLES, RESOLUTION = (
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING",
    "MLFLOW_SYSMETRICS_RESOLUTION",
)


@pytest.mark.parametrize(
    ("environ", "arguments", "adaptive"),
    [
        ({}, {}, True),
        ({RESOLUTION: "Adaptive"}, {}, True),
        ({RESOLUTION: " constant "}, {}, False),
        ({INTERVAL: "1", SAMPLES: "10"}, {}, False),  # chosen, although the defaults
        ({INTERVAL: "5"}, {}, False),
        ({INTERVAL: "0.01"}, {}, False),  # clipped, but chosen
        ({INTERVAL: "abc"}, {}, True),
        ({INTERVAL: " "}, {}, True),
        ({SAMPLES: "10"}, {}, False),
        ({SAMPLES: "0"}, {}, True),
        ({}, {"sampling_interval": 1}, False),
        ({}, {"samples_before_logging": 10}, False),
        ({INTERVAL: "abc"}, {"sampling_interval": 1, "samples_before_logging": 10}, False),
        ({RESOLUTION: "fine", INTERVAL: "1"}, {}, False),
    ],
)
def test_a_chosen_interval_makes_the_resolution_constant(
    environ: dict[str, str], arguments: dict[str, int], adaptive: bool
) -> None:
    assert Settings.from_environ(environ, **arguments).adaptive is adaptive  # type: ignore[arg-type]


def test_adaptive_beside_a_chosen_interval_is_complained_about(caplog: pytest.LogCaptureFixture) -> None:
    assert not read(**{RESOLUTION: "adaptive", INTERVAL: "1"}).adaptive
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith("RESOLUTION='adaptive' is ignored, using constant: an interval is set.")


def test_the_resolution_of_settings_in_code() -> None:
    assert Settings().adaptive
    assert not Settings(resolution="constant").adaptive
    assert not Settings(sampling_interval=2).adaptive
    assert not Settings(samples_before_logging=1).adaptive
    with pytest.raises(SettingsError, match="resolution must be adaptive or constant, got 'fine'"):
        Settings(resolution="fine")


@pytest.mark.parametrize("node_id", ["node-1", "rack 2/node.1", "nœud-1", "n" * 150])
def test_a_node_id_has_letters_of_any_language(node_id: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read(MLFLOW_SYSTEM_METRICS_NODE_ID=node_id).node_id == node_id
    assert Settings(node_id=node_id).node_id == node_id
    assert not caplog.records


def test_code_counts_if_the_variable_is_unset() -> None:
    found = Settings.from_environ({}, sampling_interval=7, node_id="b")
    assert (found.sampling_interval, found.samples_before_logging, found.node_id) == (7, 1, "b")


@pytest.mark.parametrize(
    ("variable", "value", "used"),
    [
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "abc", "1"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "-1", "1"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0", "1"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "nan", "1"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01", "0.1"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "99999", "3600"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "2.5", "10"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "0", "10"),
        ("MLFLOW_SYSMETRICS_SEND_INTERVAL", "inf", "10"),
        ("MLFLOW_SYSMETRICS_SEND_INTERVAL", "abc", "10"),
        ("MLFLOW_SYSMETRICS_FLUSH_TIMEOUT", "-1", "5"),
        ("MLFLOW_SYSMETRICS_FLUSH_TIMEOUT", "nan", "5"),
        ("MLFLOW_SYSMETRICS_SPOOL_MEGABYTES", "-1", "64"),
        ("MLFLOW_SYSMETRICS_SPOOL_MEGABYTES", "64 MB", "64"),
        ("MLFLOW_SYSMETRICS_SPOOL_MEGABYTES", "1e9", "1000000"),
        ("MLFLOW_SYSMETRICS_TAGS", "maybe", "true"),
        ("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "abc", "true"),
        ("MLFLOW_SYSMETRICS_RESOLUTION", "fine", "adaptive"),
        ("MLFLOW_SYSMETRICS_SUMMARY", "some", "true"),
        ("MLFLOW_SYSMETRICS_DESCRIPTION", "maybe", "true"),
        ("MLFLOW_SYSMETRICS_ALERT", "ftp://host", "log"),
        ("MLFLOW_SYSMETRICS_ALERT", "cmd:", "log"),
        ("MLFLOW_SYSMETRICS_REPORT", "page", "off"),
        ("MLFLOW_SYSTEM_METRICS_NODE_ID", "a(b", "a_b"),
        ("MLFLOW_SYSTEM_METRICS_NODE_ID", "../x/./y", "_/x/_/y"),
        ("MLFLOW_SYSMETRICS_COLLECTORS", "gpuu", "cpu,disk,energy,gpu,memory,network,pressure,process"),
    ],
)
def test_an_invalid_value_causes_one_warning_that_says_what_is_used(
    variable: str, value: str, used: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        Settings.from_environ({variable: value})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{variable}={value!r}" in record.getMessage()
    assert f"using {used}:" in record.getMessage()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "MLFLOW_SYSMETRICS_SPOOL_MEGABYTES",
            "1e9",
            "is out of range, using 1000000: it must be a number from 0 to 1000000.",
        ),
        (
            "MLFLOW_SYSMETRICS_SPOOL_MEGABYTES",
            "many",
            "is ignored, using 64: it must be a number from 0 to 1000000.",
        ),
        (
            "MLFLOW_SYSTEM_METRICS_NODE_ID",
            "a(b",
            "is changed, using a_b: not every MLflow accepts it in a metric name.",
        ),
        (
            "MLFLOW_SYSMETRICS_COLLECTORS",
            "-gpuu",
            ": no family has this name, did you mean gpu? The families are",
        ),
        ("MLFLOW_SYSMETRICS_COLLECTORS", "xyz", ": no family has this name. The families are cpu, memory,"),
        ("MLFLOW_SYSMETRICS_COLLECTORS", "cpuu", "; also all, default, none."),
    ],
)
def test_a_warning_says_what_is_used_and_what_would_be_valid(
    variable: str, value: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    Settings.from_environ({variable: value})
    assert said in caplog.text


def test_the_value_that_the_warning_names_is_used() -> None:
    assert read(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="abc").sampling_interval == 1
    assert read(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.01").sampling_interval == 0.1
    both = {
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "x",
        "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "3",
    }
    assert Settings.from_environ(both).sampling_interval == 10
    assert read(MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="nan").flush_timeout == 5
    assert read(MLFLOW_SYSTEM_METRICS_NODE_ID="/a//b(c)/").node_id == "_a_b_c__"
    assert read(MLFLOW_SYSTEM_METRICS_NODE_ID="n" * 240).node_id == "n" * 150
    assert read(MLFLOW_SYSMETRICS_COLLECTORS="gpuu").collectors == DEFAULT_FAMILIES


def test_a_flush_timeout_of_zero_is_valid(caplog: pytest.LogCaptureFixture) -> None:
    assert read(MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="0").flush_timeout == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "families"),
    [
        ("", DEFAULT_FAMILIES),
        ("all", set(Family)),
        ("fabric", {Family.FABRIC}),
        ("+fabric", DEFAULT_FAMILIES | {Family.FABRIC}),
        ("default,fabric", DEFAULT_FAMILIES | {Family.FABRIC}),
        ("-disk,+fabric", DEFAULT_FAMILIES - {Family.DISK} | {Family.FABRIC}),
        ("all,-cpu", set(Family) - {Family.CPU}),
        ("-all", set()),
        ("none", set()),
        ("none,+cpu", {Family.CPU}),
        ("cpu, memory", {Family.CPU, Family.MEMORY}),
        ("-gpu", DEFAULT_FAMILIES - {Family.GPU}),
        ("CPU,-cpu", set()),
    ],
)
def test_families_are_selected_added_or_left_out(value: str, families: set[Family]) -> None:
    assert read(MLFLOW_SYSMETRICS_COLLECTORS=value).collectors == families


def test_disks_are_a_list_of_directories_in_which_a_tilde_is_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read(MLFLOW_SYSMETRICS_DISKS=" /data, ~/runs ,,/data,cache").disks == (
        "/data",
        "/home/me/runs",
        "cache",
    )
    assert read().disks == ()


def test_journals_are_in_the_given_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read(MLFLOW_SYSMETRICS_SPOOL_DIR=" ~/spool ").spool_dir == "/home/me/spool"
    assert read(MLFLOW_SYSMETRICS_SPOOL_DIR=" ").spool_dir is None


@pytest.mark.parametrize(
    ("environ", "journalled"),
    [
        ({}, True),
        ({"MLFLOW_SYSMETRICS_SPOOL_DIR": "/scratch"}, True),
        ({"MLFLOW_SYSMETRICS_SPOOL_DIR": "off"}, False),
        ({"MLFLOW_SYSMETRICS_SPOOL_DIR": "OFF"}, False),
        ({"MLFLOW_SYSMETRICS_SPOOL_DIR": "false"}, False),
        ({"MLFLOW_SYSMETRICS_SPOOL_MEGABYTES": "0"}, False),
        ({"MLFLOW_SYSMETRICS_SPOOL_MEGABYTES": "0.5"}, True),
    ],
)
def test_off_or_0_megabytes_keeps_points_in_memory_only(environ: dict[str, str], journalled: bool) -> None:
    assert Settings.from_environ(environ).journalled is journalled


def test_the_size_limit_of_a_journal_is_in_megabytes_of_a_million_bytes() -> None:
    assert read().spool_bytes == 64_000_000
    assert read(MLFLOW_SYSMETRICS_SPOOL_MEGABYTES="0.5").spool_bytes == 500_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampling_interval": 0},
        {"sampling_interval": float("nan")},
        {"samples_before_logging": 0},
        {"send_interval": 1e9},
        {"flush_timeout": -1},
        {"node_id": "a(b"},
        {"node_id": ""},
        {"node_id": "a/../b"},
        {"node_id": "n" * 151},
        {"sampling_interval": "5"},
        {"flush_timeout": None},
        {"samples_before_logging": 2.5},
        {"collectors": ["cpu"]},
        {"disks": "/data"},
        {"disks": ("",)},
        {"disks": ("/a\0b",)},
        {"spool_dir": ""},
        {"spool_dir": 5},
        {"spool_megabytes": -1},
        {"spool_megabytes": float("inf")},
    ],
)
def test_an_invalid_value_in_code_is_an_error_that_names_it(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(SettingsError, match=name) as caught:
        Settings(**wrong)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SysMetricsError)


@pytest.mark.parametrize(
    ("given", "prometheus"),
    [
        ("127.0.0.1:9600", "127.0.0.1:9600"),
        ("9600", "127.0.0.1:9600"),
        ("[::1]:0", "[::1]:0"),
        ("node-7.example.org:65535", "node-7.example.org:65535"),
        ("off", None),
        ("", None),
    ],
)
def test_where_prometheus_finds_the_last_tick(given: str, prometheus: str | None) -> None:
    assert read(MLFLOW_SYSMETRICS_PROMETHEUS=given).prometheus == prometheus


@pytest.mark.parametrize(
    "given", ["127.0.0.1:65536", "host:", ":9600", "http://host:9600", "a b:9600", "yes"]
)
def test_a_bad_address_for_prometheus_is_no_address(given: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read(MLFLOW_SYSMETRICS_PROMETHEUS=given).prometheus is None
    assert "is ignored: it must be HOST:PORT, such as 127.0.0.1:9600." in caplog.text
    with pytest.raises(SettingsError, match="prometheus must be HOST:PORT"):
        Settings(prometheus=given)


@pytest.mark.parametrize(
    ("given", "otlp"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("https://otel.example.org/base/", "https://otel.example.org/base/"),
        ("On", "on"),
        ("true", "on"),
        ("false", None),
    ],
)
def test_where_opentelemetry_gets_the_last_tick(given: str, otlp: str | None) -> None:
    assert read(MLFLOW_SYSMETRICS_OTLP=given).otlp == otlp


@pytest.mark.parametrize("given", ["127.0.0.1:4318", "grpc://host:4317", "http://", "http:// host"])
def test_a_bad_address_of_a_collector_is_no_address(given: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read(MLFLOW_SYSMETRICS_OTLP=given).otlp is None
    assert (
        "is ignored: it must be the URL of a collector, such as http://127.0.0.1:4318, or on." in caplog.text
    )
    with pytest.raises(SettingsError, match="otlp must be the URL of a collector"):
        Settings(otlp=given)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("LOG", "log"),
        ("off", "off"),
        ("False", "off"),
        ("cmd: mail -s 'a run' me", "cmd: mail -s 'a run' me"),
        ("https://hooks.example.org/T0/secret", "https://hooks.example.org/T0/secret"),
    ],
)
def test_alerts_go_where_the_user_says(text: str, used: str, caplog: pytest.LogCaptureFixture) -> None:
    assert Settings.from_environ({"MLFLOW_SYSMETRICS_ALERT": text}).alert == used
    assert not caplog.records


@pytest.mark.parametrize("wrong", [{"alert": "mail"}, {"alert": ""}, {"report": "pdf"}, {"report": True}])
def test_in_code_a_wrong_place_of_alerts_or_reports_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Settings(**wrong)


def test_a_report_is_an_artifact_or_nothing() -> None:
    assert Settings.from_environ({"MLFLOW_SYSMETRICS_REPORT": "Artifact"}).report == "artifact"
    assert Settings.from_environ({"MLFLOW_SYSMETRICS_REPORT": "false"}).report == "off"
