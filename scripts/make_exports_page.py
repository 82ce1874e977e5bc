"""Writes the tables of docs/how_to/exports.md: what each metric is called for Prometheus and OpenTelemetry.

    python scripts/make_exports_page.py

A unit test checks that the page in the repository is up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlflow_sysmetrics.exports.names import EXPORTED, UNDER_LIMIT, Exported
from mlflow_sysmetrics.exports.prometheus import RUN_INFO, RUN_LABEL, TICK_AGE

PAGE = Path(__file__).parents[1] / "docs" / "how_to" / "exports.md"
BEGIN, END = "<!-- names: made by scripts/make_exports_page.py -->", "<!-- end of names -->"


def page(text: str) -> str:
    """Returns the page with the tables of the code."""
    before, _, rest = text.partition(BEGIN)
    return "\n".join([before + BEGIN, *_tables(), END + rest.partition(END)[2]])


def _tables() -> Iterator[str]:
    yield "| key, after `system/` | OpenTelemetry | unit | Prometheus |"
    yield "|---|---|---|---|"
    yield from (_row(name, one) for name, one in EXPORTED.items())
    yield f"| | | | `{RUN_INFO}{{{RUN_LABEL}}}`: 1 for each attached run |"
    yield f"| | | | `{TICK_AGE}`: seconds since the last tick |"
    yield ""
    yield "Where the job has only a part of the machine, these have other names; those above are the host's:"
    yield ""
    yield "| key, after `system/` | OpenTelemetry | unit | Prometheus |"
    yield "|---|---|---|---|"
    yield from (_row(name, one) for name, one in UNDER_LIMIT.items())


def _row(name: str, one: Exported) -> str:
    attributes = {**one.attributes, **({one.device: "..."} if one.device else {})}
    shown = ", ".join(f"{key}={value}" for key, value in attributes.items())
    labels = ", ".join(f'{key.replace(".", "_")}="{value}"' for key, value in attributes.items())
    mark = " *" if one.extension else ""
    return (
        f"| `{name}` | `{one.name}`{mark}{f' {{{shown}}}' if shown else ''} | `{one.unit}` "
        f"| `{one.prometheus}{f'{{{labels}}}' if labels else ''}` |"
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
