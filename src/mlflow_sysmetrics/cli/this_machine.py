"""The section of `doctor` about this machine: what is collected here, and what is not and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.output import counted
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.node import CHOICES, node_name
from mlflow_sysmetrics.collectors import COLLECTORS, AnyCollector
from mlflow_sysmetrics.collectors.registry import name_of, resolve_all
from mlflow_sysmetrics.daemon.sampling.probe import HANGS_SECONDS, OK, Probe
from mlflow_sysmetrics.facts import HostFacts, host_facts
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded
from mlflow_sysmetrics.samples import OPT_IN, Sample
from mlflow_sysmetrics.settings import COLLECTORS as VARIABLE
from mlflow_sysmetrics.settings import METRICS, TAGS, Settings

# A rate needs two readings; within half a second even the coarsest counter (CPU time, in 10 ms) changes.
_BETWEEN_READINGS_SECONDS = 0.5
_FACTS_SECONDS = 5.0  # the commands run for facts time out after 3 s
_PROBLEMS = "sysmetrics.error"
_FAILING = "failing: "
_HANGING = "hanging: "
_HANGING_REMEDY = "ask the kernel's log (dmesg) which device or filesystem does not answer"
_UNAVAILABLE = "unavailable: "


def findings(
    settings: Settings,
    *,
    host: Host | None = None,
    collectors: Sequence[AnyCollector] = COLLECTORS,
    facts: HostFacts | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Returns one finding per collector, faults first, then those that read something.

    Args:
        settings: the effective settings.
        host: the machine to inspect.
        collectors: the collectors to read.
        facts: the facts of the machine.
        pause: waits between the two readings.
    """
    inspected = replace(host or Host(), disks=settings.disks, gpus=settings.gpus)
    chosen = [one for one in collectors if one.family in settings.collectors]
    builders = resolve_all(chosen, inspected)
    probes = [Probe(one, inspected, build) for one, build in zip(chosen, builders, strict=True)]
    keys = _readings(probes, pause)
    found = [_collector(one, probe, keys[probe.name]) for one, probe in zip(chosen, probes, strict=True)]
    found += [_excluded(one) for one in collectors if one not in chosen]
    found.sort(key=lambda finding: _ORDER.index(finding.mark))
    if not settings.metrics:
        off = Finding("metrics", Mark.ABSENT, f"off: {METRICS}=false; below is what could be read")
        found.insert(0, off)
    return [_tags(settings, facts or host_facts()), *_job(settings, inspected), *found]


_ORDER = (Mark.WRONG, Mark.NOTE, Mark.GOOD, Mark.ABSENT)


def _readings(probes: Sequence[Probe], pause: Callable[[float], None]) -> Mapping[str, list[str]]:
    """Returns the keys that each collector yields in two readings."""
    keys: dict[str, dict[str, None]] = {probe.name: {} for probe in probes}
    for reading in range(2):
        if reading:
            pause(_BETWEEN_READINGS_SECONDS)
        for probe in probes:
            keys[probe.name].update(dict.fromkeys(sample.key for sample in _read(probe)))
    return {name: list(found) for name, found in keys.items()}


def _read(probe: Probe) -> Sequence[Sample]:
    """Returns what a probe reads, or nothing if it hangs."""
    now = time.monotonic()
    if probe.began_at is not None:
        return ()
    try:
        return bounded(lambda: probe.read(now), HANGS_SECONDS, name="sysmetrics-doctor")
    except CallTimeout:
        probe.began_at = now
        probe.hangs = True
        return ()


def _collector(kind: AnyCollector, probe: Probe, keys: Sequence[str]) -> Finding:
    """Returns what one collector reads here, or why it reads nothing."""
    more = {"family": kind.family.value, "series": [f"system/{key}" for key in keys], "health": probe.health}
    health = probe.health
    if health.startswith(_UNAVAILABLE):
        return Finding(
            probe.name, Mark.ABSENT, f"not available: {health.removeprefix(_UNAVAILABLE)}", None, more
        )
    if health.startswith(_FAILING):
        remedy = f"report it; until then, exclude the family with {VARIABLE}=-{kind.family.value}"
        return Finding(probe.name, Mark.WRONG, health, remedy, more)
    if health.startswith(_HANGING):
        remedy = f"{_HANGING_REMEDY}; until then, exclude the family with {VARIABLE}=-{kind.family.value}"
        return Finding(probe.name, Mark.WRONG, health, remedy, more)
    if not keys:
        return Finding(probe.name, Mark.ABSENT, "ready, nothing to read yet", None, more)
    read = f"{counted(len(keys), 'metric')} of {kind.family.value}"
    missing = health.removeprefix(OK).removeprefix(", but ")
    text = f"{read}; not available: {missing}" if missing else read
    return Finding(probe.name, Mark.GOOD, text, None, more)


def _excluded(kind: AnyCollector) -> Finding:
    """Returns why a collector is not read: its family is opt-in, or the settings exclude it."""
    family = kind.family.value
    more = {"family": family, "series": [], "health": "excluded"}
    # Without the sign, the name would replace the default families instead of adding to them.
    text = f"only with {VARIABLE}=+{family}" if kind.family in OPT_IN else f"excluded by {VARIABLE}"
    return Finding(name_of(kind), Mark.ABSENT, text, None, more)


def _job(settings: Settings, host: Host) -> Iterator[Finding]:
    """Yields the job that this process is part of, and variables about it that are not understood."""
    for variable, allowed in CHOICES.items():
        given = host.environ.get(variable, "").strip().lower()
        if given and given not in allowed:
            text = f"{given!r} is ignored: it must be {' or '.join(allowed)}"
            yield Finding(variable, Mark.WRONG, text, f"correct or unset {variable}")
    job = Job.from_environ(host.environ)
    if job is None:
        return
    name = settings.node_id or node_name(job, job.node_rank, host)
    more = {**asdict(job), "node_name": name}
    keys = f"keys begin with system/{name}/" if name else "keys begin with system/"
    yield Finding("job", Mark.GOOD, f"{job}; {keys}", None, more)


def _tags(settings: Settings, facts: HostFacts) -> Finding:
    """Returns how many tags a run gets, and which facts could not be determined."""
    name = "sys.* tags"
    if not settings.tags:
        return Finding(name, Mark.ABSENT, f"off: {TAGS}=false")
    tags = facts.tags(wait_seconds=_FACTS_SECONDS)
    problems = tags.pop(_PROBLEMS, "")
    text = f"{counted(len(tags), 'fact')} on every run"
    more = {"tags": tags, "problems": problems or None}
    return Finding(name, Mark.GOOD, f"{text}; unknown: {problems}" if problems else text, None, more)
