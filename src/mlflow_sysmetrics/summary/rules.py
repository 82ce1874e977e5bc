"""What a summary means: rules as data, each with its thresholds and their published source.

A rule looks at one node. It finds something, finds nothing, or cannot say, because an input is absent or may
mislead: utilization of a GPU that others use too is not the job's. Nothing is found before a rule's patience
is over. Idling in a notebook is not a finding for eight hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from mlflow_sysmetrics.summary import evidence
from mlflow_sysmetrics.summary.evidence import Numbers
from mlflow_sysmetrics.summary.summary import Summary

#: The beginning of a run that rules about its course leave out: the longer of seconds and share of the run.
WARM_UP_SECONDS, WARM_UP_SHARE = 120.0, 0.05
#: Time that must be measured before there is a verdict, and for idling in a notebook; both are jobstats'.
PATIENCE_SECONDS, INTERACTIVE_SECONDS = 300.0, 8 * 3600.0
HEALTHY = "healthy"

_JOBSTATS = "https://github.com/PrincetonUniversity/jobstats"
_DEFENSE = "https://github.com/PrincetonUniversity/job_defense_shield"
_SAGEMAKER = "https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html"
_COMPOSER = "https://docs.mosaicml.com/projects/composer/en/stable/api_reference/generated/composer.callbacks.HealthChecker.html"
_KERNEL = "https://docs.kernel.org/scheduler/sched-bwc.html"
_OOM = "https://docs.kernel.org/admin-guide/cgroup-v2.html"
_NVIDIA = "https://docs.nvidia.com/deploy/xid-errors/"
_NVML = "https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html"

_UNUSED, _UNUSED_MEMORY = 1.0, 5.0  # percent; a driver's reservation and a context are below


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: the verdict.
        inputs: what it looks at, in words.
        thresholds: its numbers, in the unit of its inputs.
        source: where they are published.
        look: returns the numbers of the wording if it applies, an empty mapping if it does not, None if it
            cannot say.
        wording: the number, what is usual, one cause and one next step.
        patience: seconds that must be measured.
        about_idling: whether a notebook has longer.
        whole: whether it looks at the whole run, also at its beginning.
        explains: verdicts that it makes superfluous.
        series: keys of what it looks at, as regular expressions, to draw them.
    """

    name: str
    inputs: str
    thresholds: Mapping[str, float]
    source: str
    look: Callable[[Summary, Mapping[str, float]], Numbers | None]
    wording: str
    patience: float = PATIENCE_SECONDS
    about_idling: bool = False
    whole: bool = False
    explains: tuple[str, ...] = ()
    series: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule found.

    Attributes:
        name: of the rule, such as "input-bound".
        text: the number, what is usual, one cause and one next step.
        node: id of the node; "" for a run without one.
        numbers: what was found, by name.
        source: where the thresholds are published.
        series: keys of what it is about, as regular expressions.
    """

    name: str
    text: str
    node: str = ""
    numbers: Numbers = field(default_factory=dict)
    source: str = ""
    series: tuple[str, ...] = ()


def verdicts(whole: Summary, settled: Summary | None = None) -> tuple[Verdict, ...]:
    """Returns what the rules find on one node, the most certain first; empty if they cannot say.

    Args:
        whole: the run.
        settled: the run without its beginning (`WARM_UP_SECONDS`, `WARM_UP_SHARE`); None if there is none.
    """
    found: list[Verdict] = []
    for rule in RULES:
        summary = whole if rule.whole else settled
        interactive = rule.about_idling and whole.surroundings.interactive
        patience = INTERACTIVE_SECONDS if interactive else rule.patience
        if summary is None or whole.seconds < patience:
            continue
        if rule.name == HEALTHY and found:
            continue
        numbers = rule.look(summary, rule.thresholds)
        if numbers:
            text = rule.wording.format(**numbers, **rule.thresholds)
            found.append(Verdict(rule.name, text, whole.node, numbers, rule.source, rule.series))
    explained = {name for one in found for name in _explains(one.name)}
    return tuple(one for one in found if one.name not in explained)


def verdicts_of_nodes(
    nodes: Sequence[tuple[Summary, Summary | None]],
) -> tuple[Verdict, ...]:
    """Returns what the rules find on several nodes of one run: a node may lag behind the others.

    Args:
        nodes: of each node its run, and its run without the beginning.
    """
    found = [one for whole, settled in nodes for one in verdicts(whole, settled)]
    found += _straggling_nodes([settled for _, settled in nodes if settled is not None])
    if any(one.name != HEALTHY for one in found) or len([1 for one in found if one.name == HEALTHY]) < len(
        nodes
    ):
        return tuple(one for one in found if one.name != HEALTHY)
    return tuple(found[:1])  # it holds for all of them


def _explains(name: str) -> tuple[str, ...]:
    return next((rule.explains for rule in RULES if rule.name == name), ())


_GPU_USED = r"gpu_\d+_utilization_percentage"
_MEMORY = r"system_memory_usage_percentage"
_CPU = r"cpu_utilization_percentage"

RULES = (
    Rule(
        "faults",
        "ECC errors, XID errors and remapped rows of each GPU",
        {"faults": 0.0},
        _NVIDIA,
        evidence.faults,
        "{found}; a sound GPU reports none. The device may be failing, and results on it are doubtful: run "
        "the job again elsewhere and tell the administrators.",
        patience=0.0,
        whole=True,
        series=(r"gpu_\d+_(ecc|xid)_errors", r"gpu_\d+_remapped_rows"),
    ),
    Rule(
        "near-out-of-memory",
        "peak of memory as a share of its limit; kills by the kernel",
        {"max": 95.0},
        _OOM,
        evidence.near_out_of_memory,
        "Memory reached {peak} of its limit{killed}; up to {max:.0f} % leaves room for a peak. Data loaders "
        "multiply what a process holds: request more memory, or use fewer workers.",
        patience=0.0,
        whole=True,
        series=(_MEMORY, r"memory_oom_kills"),
    ),
    Rule(
        "gpu-unused",
        "mean utilization and memory of each GPU",
        {"mean": _UNUSED, "memory": _UNUSED_MEMORY},
        _JOBSTATS,
        evidence.gpu_unused,
        "{gpus} of {of} did nothing (mean utilization {found:.1f} %) and held no memory of the job; a GPU "
        "that is needed is used. The program may run on the CPU, or on fewer GPUs than it has: move the "
        "model to the device, or request fewer GPUs.",
        about_idling=True,
        explains=("straggler", "gpu-starved", "input-bound"),
        series=(_GPU_USED, r"gpu_\d+_memory_usage_percentage"),
    ),
    Rule(
        "cpu-throttled",
        "share of the periods of a CPU quota in which it stopped the job",
        {"periods": 10.0},
        _KERNEL,
        evidence.cpu_throttled,
        "The CPU quota stopped the job in {found:.0f} % of its periods; below {periods:.0f} % is usual. The "
        "job has more running threads than its quota allows: raise the CPU limit, or use fewer workers and "
        "threads.",
        explains=("input-bound", "gpu-starved"),
        series=(r"cpu_throttled_percentage", _CPU),
    ),
    Rule(
        "gpu-throttled",
        "share of time in which power or heat slowed a GPU down",
        {"time": 10.0},
        _NVML,
        evidence.gpu_throttled,
        "GPU {gpu} was slowed down by power or heat for {found:.0f} % of the time; below {time:.0f} % is "
        "usual. A low power limit or poor cooling is the cause: look at its temperature and power below, "
        "and ask the administrators.",
        explains=("gpu-starved",),
        series=(r"gpu_\d+_throttled_percentage", r"gpu_\d+_temperature_celsius"),
    ),
    Rule(
        "straggler",
        "mean utilization of each GPU over 120 s against the median of the node's GPUs",
        {"points": 10.0, "share": 50.0},
        _COMPOSER,
        evidence.straggler,
        "{what} was used {found:.0f} %, {distance:.0f} points from the median of {middle:.0f} %; within "
        "{points:.0f} is usual. Uneven shards of data make one wait for the others: compare the batches of "
        "the ranks, then the clock and the temperature of the devices.",
        explains=("gpu-starved",),
        series=(_GPU_USED,),
    ),
    Rule(
        "input-bound",
        "median utilization of the GPUs; CPU use, CPU quota and waiting for disks at the same time",
        {"p50": 50.0, "share": 50.0},
        _SAGEMAKER,
        evidence.input_bound,
        "A GPU was used less than {p50:.0f} % for half of the time (median {found:.0f} %), and in "
        "{limited:.0f} % of that time CPU or disk was at its limit; a fed GPU is above {p50:.0f} %. The "
        "input pipeline is too slow: add CPU cores and workers, or do the preprocessing in advance.",
        about_idling=True,
        explains=("gpu-starved",),
        series=(_GPU_USED, _CPU, r"io_pressure_percentage"),
    ),
    Rule(
        "gpu-starved",
        "5 % and 95 % quantile of the utilization of each GPU",
        {"p95": 70.0, "p5": 10.0},
        _SAGEMAKER,
        evidence.gpu_starved,
        "GPU {gpu} alternated between {low:.0f} % and {high:.0f} % (mean {found:.0f} %); a steady training "
        "stays above {p5:.0f} %. It waits for something that keeps neither CPU nor disk busy, often one slow "
        "worker or a lock: profile the time between two steps.",
        about_idling=True,
        series=(_GPU_USED,),
    ),
    Rule(
        "over-requested",
        "mean CPU use and peak of memory of a job with an allocation of its own; cores per GPU",
        {"cpu": 50.0, "memory": 35.0, "cores_per_gpu": 18.0},
        _DEFENSE,
        evidence.over_requested,
        "{cores:g} cores were used {found:.0f} %, and memory up to {peak:.0f} %; {cpu:.0f} % and "
        "{memory:.0f} % are the least that is usual. The request was larger than the job: next time ask for "
        "about {needed} cores and half of the memory.",
        patience=1800.0,
        about_idling=True,
        series=(_CPU, _MEMORY),
    ),
    Rule(
        HEALTHY,
        "all of the above, and the median utilization of each GPU, or the mean of the CPUs without GPUs",
        {"p50": 50.0, "cpu": 50.0},
        _JOBSTATS,
        evidence.healthy,
        "No rule applies, and {found}.",
        series=(),
    ),
)


#: Verdicts that need no patience.
AT_ONCE = frozenset(rule.name for rule in RULES if not rule.patience)


def _straggling_nodes(nodes: Sequence[Summary]) -> list[Verdict]:
    """Returns the node whose GPUs are used least, if it is far from the median of the nodes."""
    rule = next(one for one in RULES if one.name == "straggler")
    known = [
        (sum(used.mean for _, used in judged) / len(judged), summary.node)
        for summary in nodes
        if summary.seconds >= rule.patience and (judged := evidence.own_gpus(summary))
    ]
    if len(known) < 2:  # noqa: PLR2004 - one alone lags behind nothing
        return []
    middle = median(mean for mean, _ in known)
    mean, node = max(known, key=lambda one: (abs(one[0] - middle), -one[0]))
    distance = abs(mean - middle)
    if distance <= rule.thresholds["points"]:
        return []
    numbers = {"what": f"The GPUs of node {node}", "found": mean, "middle": middle, "distance": distance}
    text = rule.wording.format(**numbers, **rule.thresholds)
    return [Verdict(rule.name, text, node, numbers, rule.source, rule.series)]
