"""Every option, in one frozen object; the only reader of our environment variables.

MLflow's own names are used wherever MLflow has one. A bad value in the environment gives one warning that
names the variable, the value and what is used instead; the same value passed in code is a `SettingsError`.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family

PROVIDERS = "MLFLOW_RUN_CONTEXT_PROVIDER"
METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
SAMPLING_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SAMPLES_BEFORE_LOGGING = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
NODE_ID = "MLFLOW_SYSTEM_METRICS_NODE_ID"
TAGS = "MLFLOW_SYSMETRICS_TAGS"
COLLECTORS = "MLFLOW_SYSMETRICS_COLLECTORS"
DISKS = "MLFLOW_SYSMETRICS_DISKS"
GPUS = "MLFLOW_SYSMETRICS_GPUS"
SEND_INTERVAL = "MLFLOW_SYSMETRICS_SEND_INTERVAL"
FLUSH_TIMEOUT = "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT"
SPOOL_DIR = "MLFLOW_SYSMETRICS_SPOOL_DIR"
SPOOL_MEGABYTES = "MLFLOW_SYSMETRICS_SPOOL_MEGABYTES"

ENTRY_POINT = "sysmetrics"  #: our name in a list of providers
SPOOL_OFF = "off"  #: in place of a directory: points wait in memory only

# Where the user sets one of the two, the other one takes MLflow's default, so that "every 5 seconds" means
# what it means to MLflow. https://mlflow.org/docs/latest/ml/tracking/system-metrics
MLFLOW_SAMPLING_INTERVAL = 10.0
MLFLOW_SAMPLES_BEFORE_LOGGING = 1

DEFAULT_SAMPLING_INTERVAL = 1.0
DEFAULT_SAMPLES_BEFORE_LOGGING = 10
DEFAULT_SEND_INTERVAL = 10.0
DEFAULT_FLUSH_TIMEOUT = 5.0
DEFAULT_SPOOL_MEGABYTES = 64.0  # six days of an outage for one run, nineteen hours for eight
_BYTES_PER_MEGABYTE = 1_000_000

_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"false", "0", "off", "no"})
_PART = r"(?!\.{1,2}(/|$))[\w\-. ]+"
_NODE_ID = re.compile(rf"{_PART}(/{_PART})*", re.ASCII)
_NODE_ID_LENGTH = 150  # of the 250 that the name of a metric may have; our longest key takes less than 100
# What a list of GPUs holds: indices, beginnings of UUIDs, and for Intel's, which have none, PCI addresses.
_GPU = re.compile(r"\d{1,4}|(?i:GPU|MIG)-[\w/-]+|[\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.[0-7]", re.ASCII)
_GPU_CHOICES = ("visible", "process", "all")
_GPU_FORMS = f"one of {', '.join(_GPU_CHOICES)} nor a list of indices and UUIDs"

_logger = logging.getLogger("mlflow_sysmetrics")
_warned: set[tuple[str, str]] = set()


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
    """What the user wants.

    Attributes:
        providers: whether anything of this package is active.
        tags: whether runs get ``sys.*`` tags.
        metrics: whether runs get ``system/*`` metrics unless `mlflow.start_run` is told otherwise.
        sampling_interval: seconds between two ticks, 0.1 to 3600.
        samples_before_logging: ticks per point, at least 1.
        node_id: name of this node in the keys (``system/<node id>/...``), or None.
        collectors: families that are read; one that is left out is not even opened.
        disks: directories whose filesystems are watched beside the working directory's.
        gpus: "visible" (to the job), "all", "process" (where the job holds memory), or a comma-separated
            list of indices and UUIDs.
        send_interval: seconds between two sends of one run, 0.1 to 3600.
        flush_timeout: longest wait in seconds when a run ends and at exit, 0 (do not wait) to 3600.
        spool_dir: directory of the journals, which keep points on disk until their server has them; None is
            the user's state directory, "off" keeps them in memory only.
        spool_megabytes: bound of the journal of one process, in megabytes of 1e6 bytes; 0 is as "off".

    Raises:
        SettingsError: a value is out of its range.
    """

    providers: bool = True
    tags: bool = True
    metrics: bool = True
    sampling_interval: float = DEFAULT_SAMPLING_INTERVAL
    samples_before_logging: int = DEFAULT_SAMPLES_BEFORE_LOGGING
    node_id: str | None = None
    collectors: frozenset[Family] = DEFAULT_FAMILIES
    disks: tuple[str, ...] = ()
    gpus: str = "visible"
    send_interval: float = DEFAULT_SEND_INTERVAL
    flush_timeout: float = DEFAULT_FLUSH_TIMEOUT
    spool_dir: str | None = None
    spool_megabytes: float = DEFAULT_SPOOL_MEGABYTES

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise SettingsError(f"{name}={value!r} is out of range; allowed is {allowed}")
        if self.node_id is not None and not _is_node_id(self.node_id):
            raise SettingsError(
                f"node_id={self.node_id!r} cannot be part of a metric name; "
                "use up to 150 letters, digits, '_', '-', '.', ' ' and '/', and no part '.' or '..'"
            )
        if not isinstance(self.samples_before_logging, int):
            raise SettingsError(f"samples_before_logging={self.samples_before_logging!r} is no whole number")
        unknown = [one for one in self.collectors if not isinstance(one, Family)]
        if unknown:
            raise SettingsError(f"collectors has {unknown!r}; its members are those of {Family}")
        if isinstance(self.disks, str) or not all(
            isinstance(path, str) and path and "\0" not in path for path in self.disks
        ):
            raise SettingsError(f'disks={self.disks!r} is no tuple of directories; use disks=("/data",)')
        if self.spool_dir is not None and (not isinstance(self.spool_dir, str) or not self.spool_dir):
            raise SettingsError(f'spool_dir={self.spool_dir!r} is no directory; use a path, or "off"')
        if not _names_gpus(self.gpus):
            raise SettingsError(f"gpus={self.gpus!r} is neither {_GPU_FORMS}")

    @property
    def window_seconds(self) -> float:
        """Seconds between two points of a series."""
        return self.sampling_interval * self.samples_before_logging

    @property
    def journalled(self) -> bool:
        """Whether points are to be kept on disk until their server has them."""
        return self.spool_dir != SPOOL_OFF and self.spool_bytes > 0

    @property
    def spool_bytes(self) -> int:
        """Bound of the journal of one process."""
        return int(self.spool_megabytes * _BYTES_PER_MEGABYTE)

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        sampling_interval: float | None = None,
        samples_before_logging: int | None = None,
        node_id: str | None = None,
        complain: Callable[[str, str, str], None] | None = None,
    ) -> Settings:
        """Reads the environment; the arguments hold where it is silent, as in MLflow's own monitor.

        Args:
            environ: variables to read, `os.environ` by default.
            sampling_interval: seconds between two ticks.
            samples_before_logging: ticks per point.
            node_id: name of this node in the keys.
            complain: called with a bad variable, its value and what has become of it; warns once by default.

        Raises:
            SettingsError: an argument is out of its range. A bad variable never raises.
        """
        variables = _Variables(os.environ if environ is None else environ, complain or warn_once)
        rhythm = variables.rhythm(sampling_interval, samples_before_logging)
        return cls(
            providers=variables.providers(),
            tags=variables.switch(TAGS),
            metrics=variables.switch(METRICS),
            sampling_interval=rhythm[0],
            samples_before_logging=rhythm[1],
            node_id=variables.node_id() or node_id,
            collectors=variables.families(),
            disks=variables.disks(),
            gpus=variables.gpus(),
            send_interval=variables.number(SEND_INTERVAL, "send_interval", DEFAULT_SEND_INTERVAL),
            flush_timeout=variables.number(FLUSH_TIMEOUT, "flush_timeout", DEFAULT_FLUSH_TIMEOUT),
            spool_dir=variables.spool_dir(),
            spool_megabytes=variables.number(SPOOL_MEGABYTES, "spool_megabytes", DEFAULT_SPOOL_MEGABYTES),
        )


@dataclass(frozen=True, slots=True)
class _Variables:
    """Reads variables one by one; a bad one is complained of and counts as something better."""

    environ: Mapping[str, str]
    complain: Callable[[str, str, str], None]

    def text(self, variable: str) -> str:
        """Returns the value without surrounding blanks; unset and empty are the same."""
        return self.environ.get(variable, "").strip()

    def providers(self) -> bool:
        """Tells whether our entry points are wanted: unset means yes, a list must name them."""
        names = [name.strip() for name in self.text(PROVIDERS).split(",") if name.strip()]
        return not names or ENTRY_POINT in names

    def switch(self, variable: str) -> bool:
        """Reads an on/off switch that is on by default."""
        text = self.text(variable).lower()
        if text and text not in _TRUE | _FALSE:
            value = self.environ[variable]
            self.complain(variable, value, "is ignored, using true: it is neither true nor false")
        return text not in _FALSE

    def rhythm(self, interval: float | None, samples: int | None) -> tuple[float, int]:
        """Reads seconds between ticks and ticks per point; the arguments are those given in code."""
        seconds = self._usable(SAMPLING_INTERVAL, "sampling_interval", float)
        count = self._usable(SAMPLES_BEFORE_LOGGING, "samples_before_logging", int)
        chosen_interval = interval if seconds is None else seconds
        chosen_samples = samples if count is None else int(count)
        if chosen_interval is not None:
            default_interval, default_samples = chosen_interval, MLFLOW_SAMPLES_BEFORE_LOGGING
        elif chosen_samples is not None:
            default_interval, default_samples = MLFLOW_SAMPLING_INTERVAL, chosen_samples
        else:
            default_interval, default_samples = DEFAULT_SAMPLING_INTERVAL, DEFAULT_SAMPLES_BEFORE_LOGGING
        if chosen_samples is not None:
            default_samples = chosen_samples
        return (
            self.number(SAMPLING_INTERVAL, "sampling_interval", default_interval),
            int(self.number(SAMPLES_BEFORE_LOGGING, "samples_before_logging", default_samples, int)),
        )

    def number(self, variable: str, name: str, default: float, kind: type[float | int] = float) -> float:
        """Reads a number in the range of the setting `name`; what cannot be used warns once."""
        text = self.text(variable)
        value = self._usable(variable, name, kind)
        used = default if value is None else value
        if text and (value is None or value != kind(text)):
            what = "a whole number" if kind is int else "a number"
            verdict = "is ignored" if value is None else "is out of range"
            self.complain(
                variable, text, f"{verdict}, using {_plain(used)}: it is not {what} from {_RANGES[name]}"
            )
        return used

    def _usable(self, variable: str, name: str, kind: type[float | int]) -> float | None:
        """Returns the number of a variable, moved to the nearest bound of its range; None if it is none."""
        try:
            value = kind(self.text(variable))
        except ValueError:
            return None
        allowed = _RANGES[name]
        if value in allowed:
            return value
        # Zero and less are no wish for the smallest interval; a tenth too little of it is.
        return min(max(value, allowed.low), allowed.high) if 0 < value < math.inf else None

    def node_id(self) -> str | None:
        """Reads the node's name; what a metric name cannot hold becomes an underscore."""
        text = self.text(NODE_ID)
        if not text or _is_node_id(text):
            return text or None
        cleaned = re.sub(r"[^\w\-. /]|^/+|/+$|//+|(?<![^/])\.{1,2}(?![^/])", "_", text, flags=re.ASCII)
        cleaned = cleaned[:_NODE_ID_LENGTH].rstrip("/")
        self.complain(NODE_ID, text, f"is changed, using {cleaned}: it cannot be part of a metric name")
        return cleaned

    def families(self) -> frozenset[Family]:
        """Reads a list of families.

        Plain words are what is read, words with a sign change what is read by default: ``cpu,memory`` is
        these two, ``-disk,+fabric`` the default without one and with another. ``all`` is every family,
        ``default`` those that are read where nothing is said, ``none`` none.
        """
        known = {family.value: frozenset({family}) for family in Family}
        known |= {"all": frozenset(Family), "default": DEFAULT_FAMILIES, "none": frozenset()}
        plain: list[frozenset[Family]] = []
        signed: dict[str, list[frozenset[Family]]] = {"+": [], "-": []}
        unknown: list[str] = []
        for word in filter(None, (part.strip() for part in self.text(COLLECTORS).lower().split(","))):
            families = known.get(word.lstrip("+-"))
            if families is None:
                unknown.append(word)
            else:
                signed.get(word[0], plain).append(families)
        found = frozenset().union(*(plain or [DEFAULT_FAMILIES]), *signed["+"]).difference(*signed["-"])
        for word in unknown:
            used = ",".join(sorted(family.value for family in found)) or "none"
            self.complain(
                COLLECTORS, word, f"is ignored, using {used}: {_no_family(word.lstrip('+-'), known)}"
            )
        return found

    def disks(self) -> tuple[str, ...]:
        """Reads a list of directories; a "~" at the start is the home directory."""
        paths = (path.strip() for path in self.text(DISKS).split(","))
        # Not Path.expanduser, which raises where there is no home directory.
        return tuple(dict.fromkeys(os.path.expanduser(path) for path in paths if path))  # noqa: PTH111

    def spool_dir(self) -> str | None:
        """Reads the directory of the journals, or that there is to be none."""
        text = self.text(SPOOL_DIR)
        if text.lower() in _FALSE:
            return SPOOL_OFF
        return os.path.expanduser(text) or None  # noqa: PTH111 - as above

    def gpus(self) -> str:
        """Reads which GPUs are watched; what names none in a list is left out of it."""
        text = self.text(GPUS)
        if text.lower() in _GPU_CHOICES:
            return text.lower()
        words = _words(text)
        used = ",".join(filter(_GPU.fullmatch, words)) or "visible"
        for word in words:
            if not _GPU.fullmatch(word):
                self.complain(GPUS, word, f"is ignored, using {used}: it is neither {_GPU_FORMS}")
        return used


def _names_gpus(wanted: object) -> bool:
    words = _words(wanted) if isinstance(wanted, str) else []
    return wanted in _GPU_CHOICES or (bool(words) and all(map(_GPU.fullmatch, words)))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _no_family(word: str, known: Iterable[str]) -> str:
    """Returns what to say of a word that names no family, and which it may have been meant to name."""
    families = [family.value for family in Family]
    several = [name for name in known if name not in families]
    near = difflib.get_close_matches(word, [*families, *several], n=1)
    meant = f", did you mean {near[0]}?" if near else "."
    return f"no family has this name{meant} The families are {', '.join(families)}; also {', '.join(several)}"


def _plain(number: float) -> str:
    """Returns a number as people write it: 1000000, not 1e+06."""
    return f"{number:.15g}"


def warn_once(variable: str, value: str, verdict: str) -> None:
    """Logs one warning per variable and value in the life of the process."""
    if (variable, value) not in _warned:
        _warned.add((variable, value))
        _logger.warning("mlflow-sysmetrics: %s=%r %s.", variable, value, verdict)


def _is_node_id(text: str) -> bool:
    """Returns whether a text can stand in the metric names of every MLflow, which accept more and more."""
    return len(text) <= _NODE_ID_LENGTH and _NODE_ID.fullmatch(text) is not None
