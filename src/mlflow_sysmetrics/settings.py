"""Every option, in one frozen object; the only reader of our environment variables.

MLflow's own names are used wherever MLflow has one. A bad value in the environment gives one warning that
names the variable, the value and what is used instead; the same value passed in code is a `SettingsError`.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.samples import Family

PROVIDERS = "MLFLOW_RUN_CONTEXT_PROVIDER"
METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
SAMPLING_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SAMPLES_BEFORE_LOGGING = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
NODE_ID = "MLFLOW_SYSTEM_METRICS_NODE_ID"
TAGS = "MLFLOW_SYSMETRICS_TAGS"
COLLECTORS = "MLFLOW_SYSMETRICS_COLLECTORS"
SEND_INTERVAL = "MLFLOW_SYSMETRICS_SEND_INTERVAL"
FLUSH_TIMEOUT = "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT"

ENTRY_POINT = "sysmetrics"  #: our name in a list of providers
ALL_FAMILIES = frozenset(Family)

# Where the user sets one of the two, the other one takes MLflow's default, so that "every 5 seconds" means
# what it means to MLflow. https://mlflow.org/docs/latest/ml/tracking/system-metrics
MLFLOW_SAMPLING_INTERVAL = 10.0
MLFLOW_SAMPLES_BEFORE_LOGGING = 1

DEFAULT_SAMPLING_INTERVAL = 1.0
DEFAULT_SAMPLES_BEFORE_LOGGING = 10
DEFAULT_SEND_INTERVAL = 10.0
DEFAULT_FLUSH_TIMEOUT = 5.0

_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"false", "0", "off", "no"})
# What every MLflow since 2.0 takes in a metric name; newer ones take a colon too.
_NODE_ID_PATTERN = re.compile(r"[\w\-. ]+(/[\w\-. ]+)*", re.ASCII)

_logger = logging.getLogger("mlflow_sysmetrics")
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class _Range:
    """Allowed values of a number, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


_RANGES = {
    "sampling_interval": _Range(0.1, 3600),
    "samples_before_logging": _Range(1, 100_000),
    "send_interval": _Range(0.1, 3600),
    "flush_timeout": _Range(0, 3600),
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
        send_interval: seconds between two sends of one run, 0.1 to 3600.
        flush_timeout: longest wait in seconds when a run ends and at exit, 0 (do not wait) to 3600.

    Raises:
        SettingsError: a value is out of its range.
    """

    providers: bool = True
    tags: bool = True
    metrics: bool = True
    sampling_interval: float = DEFAULT_SAMPLING_INTERVAL
    samples_before_logging: int = DEFAULT_SAMPLES_BEFORE_LOGGING
    node_id: str | None = None
    collectors: frozenset[Family] = ALL_FAMILIES
    send_interval: float = DEFAULT_SEND_INTERVAL
    flush_timeout: float = DEFAULT_FLUSH_TIMEOUT

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise SettingsError(f"{name}={value!r} is out of range; allowed is {allowed}")
        if self.node_id is not None and not _NODE_ID_PATTERN.fullmatch(self.node_id):
            raise SettingsError(
                f"node_id={self.node_id!r} cannot be part of a metric name; "
                "use letters, digits, '_', '-', '.', ' ' and '/'"
            )

    @property
    def window_seconds(self) -> float:
        """Seconds between two points of a series."""
        return self.sampling_interval * self.samples_before_logging

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        sampling_interval: float | None = None,
        samples_before_logging: int | None = None,
        node_id: str | None = None,
    ) -> Settings:
        """Reads the environment; the arguments hold where it is silent, as in MLflow's own monitor.

        Args:
            environ: variables to read, `os.environ` by default.
            sampling_interval: seconds between two ticks.
            samples_before_logging: ticks per point.
            node_id: name of this node in the keys.

        Raises:
            SettingsError: an argument is out of its range. A bad variable only warns.
        """
        variables = _Variables(os.environ if environ is None else environ)
        rhythm = variables.rhythm(sampling_interval, samples_before_logging)
        return cls(
            providers=variables.providers(),
            tags=variables.switch(TAGS),
            metrics=variables.switch(METRICS),
            sampling_interval=rhythm[0],
            samples_before_logging=rhythm[1],
            node_id=variables.node_id() or node_id,
            collectors=variables.families(),
            send_interval=variables.number(SEND_INTERVAL, "send_interval", DEFAULT_SEND_INTERVAL),
            flush_timeout=variables.number(FLUSH_TIMEOUT, "flush_timeout", DEFAULT_FLUSH_TIMEOUT),
        )


@dataclass(frozen=True, slots=True)
class _Variables:
    """Reads variables one by one; a bad one warns once and counts as something better."""

    environ: Mapping[str, str]

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
            warn_once(variable, self.environ[variable], "true", "it is neither true nor false")
        return text not in _FALSE

    def rhythm(self, interval: float | None, samples: int | None) -> tuple[float, int]:
        """Reads seconds between ticks and ticks per point; the arguments are those given in code."""
        nothing = math.nan
        seconds = self.number(SAMPLING_INTERVAL, "sampling_interval", nothing)
        count = self.number(SAMPLES_BEFORE_LOGGING, "samples_before_logging", nothing, whole=True)
        chosen_interval = interval if math.isnan(seconds) else seconds
        chosen_samples = samples if math.isnan(count) else int(count)
        if chosen_interval is None:
            alone = chosen_samples is not None
            chosen_interval = MLFLOW_SAMPLING_INTERVAL if alone else DEFAULT_SAMPLING_INTERVAL
            default_samples = DEFAULT_SAMPLES_BEFORE_LOGGING
        else:
            default_samples = MLFLOW_SAMPLES_BEFORE_LOGGING
        return chosen_interval, default_samples if chosen_samples is None else chosen_samples

    def number(self, variable: str, name: str, default: float, *, whole: bool = False) -> float:
        """Reads a number in the range of the setting `name`; what cannot be used counts as `default`."""
        text = self.text(variable)
        if not text:
            return default
        allowed = _RANGES[name]
        shown = "the default" if math.isnan(default) else f"{default:g}"
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            kind = "a whole number" if whole else "a number"
            warn_once(variable, text, shown, f"it is not {kind} from {allowed}")
            return default
        if value in allowed:
            return value
        if not math.isfinite(value) or value <= 0:
            warn_once(variable, text, shown, f"it is not a number from {allowed}")
            return default
        bound = min(max(value, allowed.low), allowed.high)
        warn_once(variable, text, f"{bound:g}", f"it is out of the range {allowed}")
        return bound

    def node_id(self) -> str | None:
        """Reads the node's name; what a metric name cannot hold becomes an underscore."""
        text = self.text(NODE_ID)
        if not text or _NODE_ID_PATTERN.fullmatch(text):
            return text or None
        cleaned = re.sub(r"[^\w\-. /]|^/+|/+$|//+", "_", text, flags=re.ASCII)
        warn_once(NODE_ID, text, cleaned, "it cannot be part of a metric name")
        return cleaned

    def families(self) -> frozenset[Family]:
        """Reads a list of families, each one to read or, with a minus, to leave out."""
        text = self.text(COLLECTORS).lower()
        known = {family.value: family for family in Family}
        wanted: set[Family] = set()
        unwanted: set[Family] = set()
        for word in (part.strip() for part in text.split(",")):
            family = known.get(word.removeprefix("-"))
            if family is not None:
                (unwanted if word.startswith("-") else wanted).add(family)
            elif word not in {"", "all"}:
                names = ", ".join(sorted(known))
                warn_once(COLLECTORS, word, "the rest of the list", f"the collectors are {names}")
        return frozenset((wanted or ALL_FAMILIES) - unwanted)


def warn_once(variable: str, value: str, used: str, reason: str) -> None:
    """Logs one warning per variable and value in the life of the process."""
    if (variable, value) not in _warned:
        _warned.add((variable, value))
        _logger.warning("%s=%r is ignored, using %s: %s.", variable, value, used, reason)
