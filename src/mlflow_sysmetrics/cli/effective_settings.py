"""The section of `doctor` about settings: each effective value and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlflow_sysmetrics import settings as names
from mlflow_sysmetrics.cli.findings import Finding, Mark, without_password
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable, shortened
from mlflow_sysmetrics.samples import OPT_IN, Family
from mlflow_sysmetrics.settings import Settings

_DEFAULT, _ENVIRONMENT, _MLFLOW, _INTERVAL = "default", "environment", "mlflow default", "interval"
_LONGEST_VALUE = 100  # characters of a variable that are shown


@dataclass(frozen=True, slots=True)
class _Described:
    """How one setting is shown.

    Attributes:
        field: its name in `Settings`.
        variable: its environment variable.
        text: returns its value for people.
    """

    field: str
    variable: str
    text: Callable[[Settings], str]


def findings(
    settings: Settings, environ: Mapping[str, str], complaints: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Returns every setting with its value and its origin.

    Args:
        settings: the effective settings.
        environ: the environment that they were read from.
        complaints: by variable, what is wrong with it, as returned by `read`.
    """
    return [_finding(one, settings, environ, complaints.get(one.variable, ())) for one in _SETTINGS]


def read(environ: Mapping[str, str]) -> tuple[Settings, dict[str, list[str]]]:
    """Returns the settings, and by variable what is wrong with its value."""
    complaints: dict[str, list[str]] = {}

    def report(variable: str, value: str, verdict: str) -> None:
        complaints.setdefault(variable, []).append(f"{_shown(value)} {without_password(verdict)}")

    return Settings.from_environ(environ, report=report), complaints


def _finding(
    one: _Described, settings: Settings, environ: Mapping[str, str], complaints: Sequence[str]
) -> Finding:
    given = environ.get(one.variable, "").strip()
    if one.variable == names.ALERT:
        given = _kind_of_alert(given)
    value = without_password(one.text(settings))
    origin = _origin(one, settings, given)
    more = {"variable": one.variable, "value": value, "origin": origin}
    if given:
        more["given"] = without_password(given)
    if complaints:
        remedy = f"correct or unset {one.variable}"
        return Finding(one.field, Mark.WRONG, "; ".join(complaints), remedy, more)
    why = {
        _DEFAULT: "default",
        _MLFLOW: f"MLflow's default, because {_OTHER.get(one.variable)} is set",
        _INTERVAL: "because an interval is set",
        _ENVIRONMENT: f"{one.variable}={_shown(given, quoted=False)}",
    }
    return Finding(one.field, Mark.PLAIN, f"{value} ({why[origin]})", None, more)


def _origin(one: _Described, settings: Settings, given: str) -> str:
    """Returns where a value came from.

    If only one of interval and samples is set, the other is MLflow's; and either makes the resolution
    constant.
    """
    if given:
        return _ENVIRONMENT
    default = getattr(Settings(), one.field)
    if getattr(settings, one.field) == default:
        return _DEFAULT
    return _INTERVAL if one.variable == names.RESOLUTION else _MLFLOW


def _shown(value: str, *, quoted: bool = True) -> str:
    short = shortened(without_password(value), _LONGEST_VALUE)
    return repr(short) if quoted else short


def _kind_of_alert(text: str) -> str:
    """Returns where alerts go, without the path of a webhook, which is a secret."""
    scheme, separator, rest = text.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/..." if separator and scheme.startswith("http") else text


def _switch(*, on: bool) -> str:
    return "on" if on else "off"


def _families(settings: Settings) -> str:
    """Returns the families that are read, or "all but ..." where that is shorter."""
    chosen = settings.collectors
    if chosen == frozenset(Family) - OPT_IN:
        return f"all but {' and '.join(sorted(one.value for one in OPT_IN))}"
    return ", ".join(sorted(one.value for one in chosen)) or "none"


def _directory(settings: Settings) -> str:
    if not settings.journalled:
        return "off"
    try:
        return str(spool_directory(settings))
    except JournalUnavailable:
        return "none"


_SETTINGS = (
    _Described("providers", names.PROVIDERS, lambda one: _switch(on=one.providers)),
    _Described("tags", names.TAGS, lambda one: _switch(on=one.tags)),
    _Described("metrics", names.METRICS, lambda one: _switch(on=one.metrics)),
    _Described("sampling_interval", names.SAMPLING_INTERVAL, lambda one: f"{one.sampling_interval:g} s"),
    _Described(
        "samples_before_logging", names.SAMPLES_BEFORE_LOGGING, lambda one: str(one.samples_before_logging)
    ),
    _Described("resolution", names.RESOLUTION, lambda one: one.resolution),
    _Described("node_id", names.NODE_ID, lambda one: one.node_id or "none"),
    _Described("collectors", names.COLLECTORS, _families),
    _Described("disks", names.DISKS, lambda one: ", ".join(one.disks) or "working directory"),
    _Described("gpus", names.GPUS, lambda one: one.gpus),
    _Described("send_interval", names.SEND_INTERVAL, lambda one: f"{one.send_interval:g} s"),
    _Described("flush_timeout", names.FLUSH_TIMEOUT, lambda one: f"{one.flush_timeout:g} s"),
    _Described("spool_dir", names.SPOOL_DIR, _directory),
    _Described("spool_megabytes", names.SPOOL_MEGABYTES, lambda one: f"{one.spool_megabytes:g} MB"),
    _Described("summary", names.SUMMARY, lambda one: _switch(on=one.summary)),
    _Described("description", names.DESCRIPTION, lambda one: _switch(on=one.description)),
    _Described("alert", names.ALERT, lambda one: _kind_of_alert(one.alert)),
    _Described("report", names.REPORT, lambda one: one.report),
    _Described("prometheus", names.PROMETHEUS, lambda one: one.prometheus or "off"),
    _Described("otlp", names.OTLP, lambda one: one.otlp or "off"),
)
_OTHER = {
    names.SAMPLING_INTERVAL: names.SAMPLES_BEFORE_LOGGING,
    names.SAMPLES_BEFORE_LOGGING: names.SAMPLING_INTERVAL,
}
