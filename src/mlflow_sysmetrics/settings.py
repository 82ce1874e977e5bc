"""The options of this package, read from environment variables or passed in code.

A variable has MLflow's name wherever MLflow has the option. An invalid value in the environment causes one
warning that names the variable, the value and what is used instead; in code it is a `SettingsError`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family

PROVIDERS = "MLFLOW_RUN_CONTEXT_PROVIDER"
METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
SAMPLING_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SAMPLES_BEFORE_LOGGING = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
NODE_ID = "MLFLOW_SYSTEM_METRICS_NODE_ID"
TAGS = "MLFLOW_SYSMETRICS_TAGS"
COLLECTORS = "MLFLOW_SYSMETRICS_COLLECTORS"
CLUSTER = "MLFLOW_SYSMETRICS_CLUSTER"
DISKS = "MLFLOW_SYSMETRICS_DISKS"
GPUS = "MLFLOW_SYSMETRICS_GPUS"
RESOLUTION = "MLFLOW_SYSMETRICS_RESOLUTION"
SEND_INTERVAL = "MLFLOW_SYSMETRICS_SEND_INTERVAL"
FLUSH_TIMEOUT = "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT"
SPOOL_DIR = "MLFLOW_SYSMETRICS_SPOOL_DIR"
SPOOL_MEGABYTES = "MLFLOW_SYSMETRICS_SPOOL_MEGABYTES"
SUMMARY = "MLFLOW_SYSMETRICS_SUMMARY"
DESCRIPTION = "MLFLOW_SYSMETRICS_DESCRIPTION"
ALERT = "MLFLOW_SYSMETRICS_ALERT"
REPORT = "MLFLOW_SYSMETRICS_REPORT"
PROMETHEUS = "MLFLOW_SYSMETRICS_PROMETHEUS"
OTLP = "MLFLOW_SYSMETRICS_OTLP"

METRICS_TAG = "sys.metrics"  #: "on", "on, but ...", "off: ..." or "unavailable: ..."

ENTRY_POINT = "sysmetrics"  #: our name in a list of providers
OTLP_ON = "on"  #: instead of an address: what OpenTelemetry's own variables say
SPOOL_OFF = "off"  #: instead of a directory: points are kept in memory only

ADAPTIVE = "adaptive"  #: fewer points as a run ages, and two for a straight line
CONSTANT = "constant"  #: one point per series and window
_RESOLUTIONS = (ADAPTIVE, CONSTANT)
_RESOLUTION_FORMS = f"{ADAPTIVE} or {CONSTANT}"

# If the user sets only one of the two, the other takes MLflow's default, so that "every 5 seconds" has the
# same meaning as in MLflow. https://mlflow.org/docs/latest/ml/tracking/system-metrics
DEFAULT_SAMPLING_INTERVAL = 1.0
DEFAULT_SAMPLES_BEFORE_LOGGING = 10
_RHYTHM = DEFAULT_SAMPLING_INTERVAL, DEFAULT_SAMPLES_BEFORE_LOGGING
_MLFLOW_RHYTHM = 10.0, 1
DEFAULT_GPUS = "visible"
DEFAULT_ALERT = "log"
OFF = "off"  #: no alerts, no report
ARTIFACT = "artifact"  #: a report among the artifacts of each run
DEFAULT_SEND_INTERVAL = 10.0
DEFAULT_FLUSH_TIMEOUT = 5.0
DEFAULT_SPOOL_MEGABYTES = 64.0  # six days of an outage for one run with every point, nineteen hours for eight
_BYTES_PER_MEGABYTE = 1_000_000

_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"false", "0", "off", "no"})

_warned: set[tuple[str, str]] = set()
_MOST_WARNINGS = 100  # a program may set a variable anew for each run


@dataclass(frozen=True, slots=True)
class _Range:
    """Allowed values of a number, both ends included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return math.isfinite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{_plain(self.low)} to {_plain(self.high)}"


_RANGES = {
    "sampling_interval": _Range(0.1, 3600),
    "samples_before_logging": _Range(1, 100_000),
    "send_interval": _Range(0.1, 3600),
    "flush_timeout": _Range(0, 3600),
    "spool_megabytes": _Range(0, 1_000_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a process.

    Attributes:
        providers: whether this package does anything at all.
        tags: whether runs get ``sys.*`` tags.
        metrics: whether runs get ``system/*`` metrics; an argument of `mlflow.start_run` overrides it.
        sampling_interval: seconds between two ticks, 0.1 to 3600.
        samples_before_logging: ticks per point, at least 1.
        resolution: "adaptive" (fewer points as a run ages, and two for a straight line), or "constant" (one
            point per series and window). Other values of the two above than their defaults make it constant.
        node_id: name of this node in the keys (``system/<node id>/...``), or None.
        cluster: whether the nodes of an engine such as Ray are sampled for the runs of this process.
        collectors: families to read; the others are not even opened.
        disks: directories whose filesystems are watched in addition to the working directory's.
        gpus: "visible" (to the job), "all", "process" (where the job holds memory), or a comma-separated
            list of indices and UUIDs.
        send_interval: seconds between two sends of one run, 0.1 to 3600.
        flush_timeout: longest wait in seconds when a run ends and at exit, 0 (do not wait) to 3600.
        spool_dir: directory of the journals, which keep points on disk until their server has them; None
            selects the user's state directory, "off" keeps points in memory only.
        spool_megabytes: size limit of one process's journal, in megabytes of 1e6 bytes; 0 means "off".
        summary: whether runs get ``system/summary/*`` metrics, verdict and alerts.
        description: whether the verdict is part of the run's Description, if that has no text of the user.
        alert: where causes that are found while a run lasts are reported: "log", "cmd:" with a command line,
            the address of a webhook, or "off".
        report: "artifact" adds a page to the artifacts of each run at its end, "off" does not.
        prometheus: "HOST:PORT" of a page with the last tick for Prometheus; None serves none.
        otlp: base URL of a collector that gets the last tick by OTLP, or "on" for the one of OpenTelemetry's
            own variables; None sends nothing.

    Raises:
        SettingsError: a value is out of its range.
    """

    providers: bool = True
    tags: bool = True
    metrics: bool = True
    sampling_interval: float = DEFAULT_SAMPLING_INTERVAL
    samples_before_logging: int = DEFAULT_SAMPLES_BEFORE_LOGGING
    resolution: str = ADAPTIVE
    node_id: str | None = None
    cluster: bool = True
    collectors: frozenset[Family] = DEFAULT_FAMILIES
    disks: tuple[str, ...] = ()
    gpus: str = DEFAULT_GPUS
    send_interval: float = DEFAULT_SEND_INTERVAL
    flush_timeout: float = DEFAULT_FLUSH_TIMEOUT
    spool_dir: str | None = None
    spool_megabytes: float = DEFAULT_SPOOL_MEGABYTES
    summary: bool = True
    description: bool = True
    alert: str = DEFAULT_ALERT
    report: str = OFF
    prometheus: str | None = None
    otlp: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise SettingsError(f"{name} must be a number from {allowed}, got {value!r}")
        defaults = (None, DEFAULT_GPUS, DEFAULT_ALERT, OFF)
        if (self.node_id, self.gpus, self.alert, self.report) != defaults:
            from mlflow_sysmetrics import choices  # late: `import mlflow` loads this module

            choices.check(self.node_id, self.gpus, self.alert, self.report)
        if self.prometheus is not None or self.otlp is not None:
            from mlflow_sysmetrics import choices  # late, as above

            choices.check_exports(self.prometheus, self.otlp)
        samples = self.samples_before_logging
        if not isinstance(samples, int):
            raise SettingsError(f"samples_before_logging must be an integer, got {samples!r}")
        if self.resolution not in _RESOLUTIONS:
            raise SettingsError(f"resolution must be {_RESOLUTION_FORMS}, got {self.resolution!r}")
        unknown = [one for one in self.collectors if not isinstance(one, Family)]
        if unknown:
            raise SettingsError(f"collectors must contain members of Family only, got {unknown!r}")
        are_paths = all(isinstance(one, str) and one and "\0" not in one for one in self.disks)
        if isinstance(self.disks, str) or not are_paths:
            raise SettingsError(f'disks must be directories such as ("/data",), got {self.disks!r}')
        if self.spool_dir is not None and (not isinstance(self.spool_dir, str) or not self.spool_dir):
            raise SettingsError(f'spool_dir must be a path or "off", got {self.spool_dir!r}')

    @property
    def window_seconds(self) -> float:
        """Seconds between two points of a series."""
        return self.sampling_interval * self.samples_before_logging

    @property
    def adaptive(self) -> bool:
        """Whether fewer points are sent than windows close; never if an interval was chosen."""
        rhythm = self.sampling_interval, self.samples_before_logging
        return self.resolution == ADAPTIVE and rhythm == _RHYTHM

    @property
    def journalled(self) -> bool:
        """Whether points are kept on disk until their server has them."""
        return self.spool_dir != SPOOL_OFF and self.spool_bytes > 0

    @property
    def spool_bytes(self) -> int:
        """Size limit of one process's journal, in bytes."""
        return int(self.spool_megabytes * _BYTES_PER_MEGABYTE)

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        sampling_interval: float | None = None,
        samples_before_logging: int | None = None,
        node_id: str | None = None,
        report: Callable[[str, str, str], None] | None = None,
    ) -> Settings:
        """Reads the environment; as in MLflow's own monitor, a variable overrides its argument.

        Args:
            environ: variables to read, `os.environ` by default.
            sampling_interval: seconds between two ticks.
            samples_before_logging: ticks per point.
            node_id: name of this node in the keys.
            report: called with a bad variable, its value and what is used instead; warns once by default.

        Raises:
            SettingsError: an argument is out of its range. An invalid variable never raises.
        """
        read = Variables(os.environ if environ is None else environ, report or warn_once)
        seconds, samples, chosen = read.rhythm(sampling_interval, samples_before_logging)
        return cls(
            providers=read.providers(),
            tags=read.switch(TAGS),
            metrics=read.switch(METRICS),
            sampling_interval=seconds,
            samples_before_logging=samples,
            resolution=read.resolution(is_rhythm_chosen=chosen),
            node_id=read.node_id() or node_id,
            cluster=read.switch(CLUSTER, "auto", "off"),
            collectors=read.families(),
            disks=read.disks(),
            gpus=read.gpus(),
            send_interval=read.number(SEND_INTERVAL, "send_interval", DEFAULT_SEND_INTERVAL),
            flush_timeout=read.number(FLUSH_TIMEOUT, "flush_timeout", DEFAULT_FLUSH_TIMEOUT),
            spool_dir=read.spool_dir(),
            spool_megabytes=read.number(SPOOL_MEGABYTES, "spool_megabytes", DEFAULT_SPOOL_MEGABYTES),
            summary=read.switch(SUMMARY),
            description=read.switch(DESCRIPTION),
            alert=read.choice(ALERT, DEFAULT_ALERT),
            report=read.choice(REPORT, OFF),
            prometheus=read.export(PROMETHEUS),
            otlp=read.export(OTLP),
        )


@dataclass(frozen=True, slots=True)
class Variables:
    """Reads variables one by one; an invalid value is reported once and replaced."""

    environ: Mapping[str, str]
    report: Callable[[str, str, str], None]

    def text(self, variable: str) -> str:
        """Returns the value without surrounding whitespace; an unset variable is an empty one."""
        return self.environ.get(variable, "").strip()

    def providers(self) -> bool:
        """Returns whether our entry points are enabled: they are if the variable is unset or names them."""
        names = [name.strip() for name in self.text(PROVIDERS).split(",") if name.strip()]
        return not names or ENTRY_POINT in names

    def switch(self, variable: str, on: str = "true", off: str = "false") -> bool:
        """Reads an on/off switch that is on by default; a message calls its values as given."""
        text = self.text(variable).lower()
        if text and text not in _TRUE | _FALSE | {on}:
            self.report(variable, self.environ[variable], f"is ignored, using {on}: it must be {on} or {off}")
        return text not in _FALSE

    def rhythm(self, interval: float | None, samples: int | None) -> tuple[float, int, bool]:
        """Returns seconds between ticks, ticks per point, and whether one was chosen, here or in code."""
        seconds = self._usable(SAMPLING_INTERVAL, "sampling_interval", float)
        count = self._usable(SAMPLES_BEFORE_LOGGING, "samples_before_logging", int)
        given = interval if seconds is None else seconds, samples if count is None else int(count)
        defaults = _RHYTHM if given == (None, None) else _MLFLOW_RHYTHM
        pair = [default if one is None else one for one, default in zip(given, defaults, strict=True)]
        used = self.number(SAMPLING_INTERVAL, "sampling_interval", pair[0])
        count = self.number(SAMPLES_BEFORE_LOGGING, "samples_before_logging", pair[1], int)
        return used, int(count), given != (None, None)

    def resolution(self, *, is_rhythm_chosen: bool) -> str:
        """Reads the resolution; it is constant if the user has chosen how often there is a point."""
        text = self.text(RESOLUTION).lower()
        used = CONSTANT if is_rhythm_chosen or text == CONSTANT else ADAPTIVE
        if text not in {"", used}:
            why = "an interval is set" if text in _RESOLUTIONS else f"it must be {_RESOLUTION_FORMS}"
            self.report(RESOLUTION, text, f"is ignored, using {used}: {why}")
        return used

    def number(self, variable: str, name: str, default: float, kind: type[float | int] = float) -> float:
        """Reads a number for the setting `name`; warns once about one that is invalid or out of range."""
        text = self.text(variable)
        value = self._usable(variable, name, kind)
        used = default if value is None else value
        if text and (value is None or value != kind(text)):
            wanted = f"{'an integer' if kind is int else 'a number'} from {_RANGES[name]}"
            verdict = "is ignored" if value is None else "is out of range"
            self.report(variable, text, f"{verdict}, using {_plain(used)}: it must be {wanted}")
        return used

    def _usable(self, variable: str, name: str, kind: type[float | int]) -> float | None:
        """Returns a variable's number, clipped to its range, or None if it is not usable."""
        try:
            value = kind(self.text(variable))
        except ValueError:
            return None
        allowed = _RANGES[name]
        if value in allowed:
            return value
        # 0.05 s asks for a short interval and gets the shortest; 0 or -1 does not.
        return min(max(value, allowed.low), allowed.high) if 0 < value < math.inf else None

    def node_id(self) -> str | None:
        """Reads the node id, as `choices.read_node_id` does."""
        text = self.text(NODE_ID)
        if not text:
            return None
        from mlflow_sysmetrics.choices import read_node_id  # late: `import mlflow` loads this module

        return read_node_id(text, partial(self.report, NODE_ID))

    def families(self) -> frozenset[Family]:
        """Reads a list of families, as `choices.read_families` does."""
        text = self.text(COLLECTORS)
        if not text:
            return DEFAULT_FAMILIES
        from mlflow_sysmetrics.choices import read_families  # late, as above

        return read_families(text, partial(self.report, COLLECTORS))

    def disks(self) -> tuple[str, ...]:
        """Reads a list of directories; a leading "~" stands for the home directory."""
        paths = (path.strip() for path in self.text(DISKS).split(","))
        # Path.expanduser raises if there is no home directory.
        return tuple(dict.fromkeys(os.path.expanduser(path) for path in paths if path))  # noqa: PTH111

    def spool_dir(self) -> str | None:
        """Reads the directory of the journals; a word such as "off" or "false" switches them off."""
        text = self.text(SPOOL_DIR)
        if text.lower() in _FALSE:
            return SPOOL_OFF
        return os.path.expanduser(text) or None  # noqa: PTH111 - Path.expanduser raises without a home

    def choice(self, variable: str, default: str) -> str:
        """Reads where alerts or reports go, as `choices.read_alert` and `choices.read_report` do."""
        text = self.text(variable)
        if not text:
            return default
        from mlflow_sysmetrics.choices import read_alert, read_report  # late, as above

        read = read_alert if variable == ALERT else read_report
        return read(text, partial(self.report, variable))

    def export(self, variable: str) -> str | None:
        """Reads where to show the last tick, as `choices.read_export` does."""
        text = self.text(variable)
        if not text or text.lower() in _FALSE:
            return None
        from mlflow_sysmetrics.choices import read_export  # late, as above

        return read_export(text, partial(self.report, variable), is_url=variable == OTLP)

    def gpus(self) -> str:
        """Reads which GPUs to watch, as `choices.read_gpus` does."""
        text = self.text(GPUS)
        if not text:
            return DEFAULT_GPUS
        from mlflow_sysmetrics.choices import read_gpus  # late, as above

        return read_gpus(text, partial(self.report, GPUS))


def variables() -> Variables:
    """Returns the environment, to read a switch for a twentieth of what all settings cost."""
    return Variables(os.environ, warn_once)


def _plain(number: float) -> str:
    """Returns a number without an exponent: 1000000, not 1e+06."""
    return f"{number:.15g}"


def warn_once(variable: str, value: str, verdict: str) -> None:
    """Logs one warning per variable and value and process."""
    if (variable, value) not in _warned and len(_warned) < _MOST_WARNINGS:
        _warned.add((variable, value))
        from mlflow_sysmetrics.log import Log  # late: `import mlflow` loads this module

        Log().warning("mlflow-sysmetrics: %s=%r %s.", variable, value, verdict)
