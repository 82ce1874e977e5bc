"""Generates docs/reference/metrics.md: every metric and every source, from the descriptions in the code.

    python scripts/make_metrics_page.py [--output FILE]

A unit test checks that the page in the repository is up to date.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template

from mlflow_sysmetrics import settings
from mlflow_sysmetrics.collectors import Collector, bounds, load_classes, registry
from mlflow_sysmetrics.collectors.catalogue.cpu_and_memory import PROCESS_CPU
from mlflow_sysmetrics.daemon.sampling.window import DECIMALS
from mlflow_sysmetrics.samples import OPT_IN, Family, Kind, Metric

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
TEXT = Path(__file__).with_name("metrics_template.md")

LINUX, PORTABLE = load_classes(registry.LINUX), load_classes(registry.PORTABLE)
COLLECTORS = tuple(dict.fromkeys((*LINUX, *PORTABLE)))
METRICS = tuple(dict.fromkeys(metric for collector in COLLECTORS for metric in collector.metrics))
NAMES = frozenset(metric.name for metric in METRICS)

POINTS = {
    Kind.GAUGE: ("a level", "the mean of the readings, each weighted with the time that it covers"),
    Kind.RATE: ("a change per second, or a share of time", "the same mean; the first one needs two readings"),
    Kind.COUNTER: ("a growing total", "the last reading, counted from the moment the run was attached"),
    Kind.EVENTS: ("a total that rarely grows", "as for a counter, but absent until something has happened"),
}
LABELS = ("Source", "Units", "Cost", "Absent", "Check")
UNCONFIRMED = "Unconfirmed"  # a label too, of a collector that has not been tested on a real machine
UNCONFIRMED_SYSTEMS = ("macOS", "Windows")


def page() -> str:
    """Returns the whole page."""
    text = Template(TEXT.read_text(encoding="utf-8"))
    filled = text.substitute(
        collectors=settings.COLLECTORS,
        disks=settings.DISKS,
        node_id=settings.NODE_ID,
        interval=f"{settings.DEFAULT_SAMPLING_INTERVAL:g}",
        readings=settings.DEFAULT_SAMPLES_BEFORE_LOGGING,
        decimals=DECIMALS,
        one_core=PROCESS_CPU.name,
        gpu_watts=f"{bounds.GPU_WATTS.most:,.0f}",
        celsius=f"{bounds.CELSIUS.most:g}",
        opt_in=_listed(f"`{family.value}`" for family in Family if family in OPT_IN),
        example=next(family.value for family in Family if family in OPT_IN),
        ordinary=sum(not metric.only for metric in _of_the_node()),
        per_gpu=sum(not metric.only for metric in METRICS if metric.family is Family.GPU),
        kinds=_table(("kind", "what it is", "what a point says"), _kinds()),
        families=_table(("family", "read", "collectors"), _families()),
        conditional=_table(("condition", "series"), _conditions()),
        unconfirmed="\n".join(_unconfirmed()),
        series="\n\n".join(_series()),
        sources="\n\n".join(map(_source, COLLECTORS)),
    )
    return filled.rstrip() + "\n"


def _of_the_node() -> Iterator[Metric]:
    """Yields Linux's metrics of the default families, without GPUs."""
    linux = dict.fromkeys(metric for collector in LINUX for metric in collector.metrics)
    return (metric for metric in linux if metric.family not in {*OPT_IN, Family.GPU})


def _kinds() -> Iterator[tuple[str, ...]]:
    for kind in Kind:
        yield (kind.value, *POINTS[kind])


def _families() -> Iterator[tuple[str, ...]]:
    for family in Family:
        collectors = [_link(collector) for collector in COLLECTORS if collector.family is family]
        if collectors:
            read = "on request" if family in OPT_IN else "by default"
            yield f"[`{family.value}`](#{family.value})", read, ", ".join(collectors)


def _conditions() -> Iterator[tuple[str, ...]]:
    for condition in dict.fromkeys(metric.only for metric in METRICS if metric.only):
        yield (
            _prose(condition),
            ", ".join(f"`{metric.name}`" for metric in METRICS if metric.only == condition),
        )


def _unconfirmed() -> Iterator[str]:
    for collector in COLLECTORS:
        tested_with = _documentation(collector)[1].get(UNCONFIRMED)
        if tested_with is not None:
            yield f"- {_link(collector)}: only tested with {tested_with}."
    yield f"- Everything on {_listed(UNCONFIRMED_SYSTEMS)}: only tested with constructed readings."


def _series() -> Iterator[str]:
    """Yields a section per family."""
    heading = ("key", "unit", "kind", "meaning", "a bad sign", "where", "source")
    for family in Family:
        metrics = [metric for metric in METRICS if metric.family is family]
        if metrics:
            yield f"### {family.value}\n\n{_table(heading, map(_row, metrics))}"


def _row(metric: Metric) -> tuple[str, ...]:
    where = _where([collector for collector in COLLECTORS if metric in collector.metrics])
    prose = (metric.meaning, metric.bad, f"{where}; {metric.only}" if metric.only else where, metric.source)
    return (f"`{metric.name}`", metric.unit, metric.kind.value, *map(_prose, prose))


def _where(collectors: Sequence[type[Collector]]) -> str:
    """Returns the systems on which one of the collectors reads, and which of these are experimental."""
    confirmed = not all(UNCONFIRMED in _documentation(collector)[1] for collector in collectors)
    sure = [one for one in _systems(collectors) if confirmed and one not in UNCONFIRMED_SYSTEMS]
    unsure = [one for one in _systems(collectors) if one not in sure]
    parts = [_listed(sure) if sure else "", f"experimental on {_listed(unsure)}" if unsure else ""]
    return "; ".join(filter(None, parts))


def _systems(collectors: Sequence[type[Collector]]) -> list[str]:
    on_linux = ["Linux"] if any(collector in LINUX for collector in collectors) else []
    elsewhere = ["macOS", "Windows"] if any(collector in PORTABLE for collector in collectors) else []
    return on_linux + elsewhere


def _source(collector: type[Collector]) -> str:
    """Returns the section of one source."""
    summary, fields = _documentation(collector)
    missing = [label for label in LABELS if label not in fields]
    if missing:
        raise ValueError(f"the docstring of {collector.__module__} has no {', '.join(missing)}")
    texts = {**fields, "Named": f"`{registry.name_of(collector)}`", "Read on": _where([collector])}
    lines = [f"- **{label}**: {_prose(texts[label])}" for label in ("Named", "Read on", *LABELS[:-1])]
    check = f"```sh\n{fields['Check']}\n```"
    return "\n\n".join([f"### {_heading(collector)}", _prose(summary), "\n".join(lines), check])


def _documentation(collector: type[Collector]) -> tuple[str, dict[str, str]]:
    return parse_docstring(inspect.getmodule(collector).__doc__ or "")


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Returns the first paragraph of a collector module's docstring, and the text of each label."""
    summary, _, rest = inspect.cleandoc(text).partition("\n\n")
    found = re.findall(r"^(\w+): +(.+(?:\n +.+)*)", rest, re.MULTILINE)
    return " ".join(summary.split()), {label: " ".join(value.split()) for label, value in found}


def _heading(collector: type[Collector]) -> str:
    return f"Source: {collector.__name__}"  # not only the name, which may be that of a family


def _link(collector: type[Collector]) -> str:
    """Returns a link to the section of a source, by the anchor that GitHub makes of its heading."""
    anchor = re.sub(r"[^a-z0-9 ]", "", _heading(collector).lower()).replace(" ", "-")
    return f"[{collector.__name__}](#{anchor})"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, ["---"] * len(heading), *rows))


def _prose(text: str) -> str:
    """Returns text that Markdown shows unchanged, with names of metrics and variables as code."""
    return re.sub(r"`[^`]*`|[\w{}]+|[*<|]", _shown, text)


def _shown(found: re.Match[str]) -> str:
    piece = found[0]
    if piece in NAMES or piece.startswith("MLFLOW_"):
        return f"`{piece}`"
    if piece in "*<|" or piece.strip("_") != piece:  # emphasis, a tag, a cell's end; an underscore at an edge
        return re.sub(r"[*<|_]", r"\\\g<0>", piece)
    return piece


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description="Makes docs/reference/metrics.md from the code.")
    parser.add_argument(
        "--output", type=Path, default=PAGE, metavar="FILE", help="default: docs/reference/metrics.md"
    )
    output: Path = parser.parse_args().output
    output.parent.mkdir(exist_ok=True)
    output.write_text(page(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
