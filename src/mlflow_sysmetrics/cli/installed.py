"""The section of `doctor` about the installation: what is installed, and whether MLflow uses it."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import Any, NamedTuple

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.runtime.distribution import (
    distribution_name,
    installed_version,
    is_other_project,
    reinstall_command,
)
from mlflow_sysmetrics.settings import METRICS, PROVIDERS, Settings

_GROUP = "mlflow.run_context_provider"
_TITLE = "mlflow-sysmetrics"  # of the section, as the program is called
_FIRST_WITH_METRICS = (2, 8)
# MLflow's modules, imported late: they are what is inspected here, and may be missing or different.
_REGISTRY = "mlflow.tracking.context.registry"
_MONITOR = "mlflow.system_metrics.system_metrics_monitor"
_OURS = "mlflow_sysmetrics.monitor"
_OFF = f"{PROVIDERS} does not name sysmetrics"
# The name at the start of a requirement, and its lower bound.
_REQUIRED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*) *\(?(?:>= *(?P<floor>[0-9.]+))?")

Load = Callable[[str], Any]  #: same signature as `importlib.import_module`


class _Provider(NamedTuple):
    title: str
    entry_point: str
    kind: str


_PROVIDERS = (
    _Provider("Tags provider", "sysmetrics", "SysMetricsRunContextProvider"),
    _Provider("Metrics provider", "sysmetrics_daemon", "SysMetricsDaemonRunContextProvider"),
)


def findings(
    settings: Settings,
    *,
    load: Load = import_module,
    registered: Iterable[EntryPoint] | None = None,
    required: Sequence[str] | None = None,
) -> list[Finding]:
    """Returns versions, and whether MLflow uses the providers and the metrics hook.

    Args:
        settings: the effective settings.
        load: imports a module.
        registered: entry points of MLflow's group; by default those of this environment.
        required: requirements of this package; by default those of the installed metadata.
    """
    points = list(entry_points(group=_GROUP) if registered is None else registered)
    found = [_package(), _dependencies(required), _python()]
    try:
        mlflow = load("mlflow")
    except Exception as error:  # importing MLflow beside an incompatible library may raise anything
        text = f"cannot be imported: {_first_line(error)}"
        found.append(Finding("MLflow", Mark.WRONG, text, "pip install --upgrade mlflow"))
        found += [_entry_point(one, points) for one in _PROVIDERS]
    else:
        there = _Installation(str(mlflow.__version__), settings, load)
        found.append(Finding("MLflow", Mark.GOOD, there.version, None, {"version": there.version}))
        found += [there.provider(one, points) for one in _PROVIDERS]
        found.append(there.hook())
    return found


@dataclass(frozen=True, slots=True)
class _Installation:
    """An importable MLflow; importing it has built its context providers."""

    version: str
    settings: Settings
    load: Load

    def provider(self, one: _Provider, registered: Sequence[EntryPoint]) -> Finding:
        """Returns whether a provider is registered, can be loaded, and is in MLflow's registry."""
        finding = _entry_point(one, registered)
        if finding.mark is Mark.WRONG:
            return finding
        if one.kind not in set(self._in_force()):
            text = f"{one.entry_point} is registered, but this MLflow does not use it"
            return Finding(one.title, Mark.WRONG, text, "pip install --upgrade mlflow")
        if not self.settings.providers:
            return Finding(one.title, Mark.ABSENT, f"{one.entry_point} is off: {_OFF}")
        return finding

    def hook(self) -> Finding:
        """Returns whether MLflow's monitor is ours, imported the way `mlflow.start_run` does."""
        title = "Metrics hook"
        if not self.settings.providers:
            return Finding(title, Mark.ABSENT, f"not installed: {_OFF}")
        if tuple(map(int, self.version.split(".")[:2])) < _FIRST_WITH_METRICS:
            text = "this MLflow version has no system metrics; runs get tags only"
            return Finding(title, Mark.NOTE, text, "for metrics: pip install 'mlflow>=2.8'")
        try:
            monitor = getattr(self.load(_MONITOR), "SystemMetricsMonitor", None)
        except Exception as error:  # importing MLflow's code may raise anything
            text = f"{_MONITOR} cannot be imported: {_first_line(error)}"
            return Finding(title, Mark.WRONG, text, "pip install --force-reinstall mlflow")
        if getattr(monitor, "__module__", None) != _OURS:
            text = "not in effect: MLflow's own monitor is active; runs get tags, and MLflow's metrics only"
            return Finding(title, Mark.WRONG, text, "report it with these versions; attach() still works")
        if not self.settings.metrics:
            return Finding(title, Mark.ABSENT, f"in effect, but metrics are off: {METRICS}=false")
        return Finding(title, Mark.GOOD, "in effect: every run has metrics from one thread")

    def _in_force(self) -> Iterator[str]:
        """Yields the class names of the providers that MLflow asks for tags."""
        yield from fluent_state.context_providers(self.load(_REGISTRY))


def _package() -> Finding:
    installed = installed_version()
    if installed is None:
        text = "not installed, only importable: MLflow cannot find its providers"
        return Finding(_TITLE, Mark.WRONG, text, reinstall_command(), {"version": None})
    more = {"version": installed}
    if is_other_project(installed):
        text = f"{installed} is another project, which has this name on the index; it replaces this one"
        remedy = f"pip uninstall {distribution_name()}, then install this project from its source"
        return Finding(_TITLE, Mark.WRONG, text, remedy, more)
    return Finding(_TITLE, Mark.GOOD, installed, None, more)


def _dependencies(required: Sequence[str] | None) -> Finding:
    """Returns which required packages are missing or too old; packages of extras are not required."""
    if required is None:
        try:
            required = requires(distribution_name()) or []
        except PackageNotFoundError:
            required = []
    needed = [found for one in required if "extra ==" not in one and (found := _REQUIRED.match(one))]
    missing = [one["name"] for one in needed if _installed(one["name"]) is None]
    old = [one for one in needed if one["floor"] and _is_older(_installed(one["name"]), one["floor"])]
    if not missing and not old:
        return Finding("dependencies", Mark.GOOD, f"all {len(needed)} are installed")
    texts = [f"not installed: {', '.join(missing)}"] if missing else []
    texts += [f"{one['name']} {_installed(one['name'])} is older than {one['floor']}" for one in old]
    wanted = missing + [f"'{one['name']}>={one['floor']}'" for one in old]
    return Finding("dependencies", Mark.WRONG, "; ".join(texts), f"pip install {' '.join(wanted)}")


def _installed(name: str) -> str | None:
    """Returns the version of a package; None if it is not installed."""
    # mlflow-skinny provides the parts of MLflow that we use, under the same module name.
    for one in (name, "mlflow-skinny") if name == "mlflow" else (name,):
        with suppress(PackageNotFoundError):
            return version(one)
    return None


def _is_older(found: str | None, floor: str) -> bool:
    """Returns whether a version is below another, by the numbers in it."""
    have, want = (tuple(map(int, re.findall(r"[0-9]+", one))) for one in (found or "", floor))
    return bool(have) and have < want


def _python() -> Finding:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", Mark.GOOD, text, None, {"version": platform.python_version()})


def _entry_point(one: _Provider, registered: Sequence[EntryPoint]) -> Finding:
    """Returns whether a provider is registered and can be loaded."""
    mine = next((point for point in registered if point.name == one.entry_point), None)
    if mine is None:
        return Finding(
            one.title, Mark.WRONG, f"no entry point {one.entry_point} in {_GROUP}", reinstall_command()
        )
    try:
        mine.load()
    except Exception as error:  # a broken installation may raise anything
        text = f"{one.entry_point} cannot be loaded: {_first_line(error)}"
        return Finding(one.title, Mark.WRONG, text, reinstall_command())
    return Finding(one.title, Mark.GOOD, f"{one.entry_point} is registered and loaded")


def _first_line(error: BaseException) -> str:
    message = (cleaned(str(error)).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {message}"
