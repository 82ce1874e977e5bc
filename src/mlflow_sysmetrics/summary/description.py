"""The verdict of a run as one line, and as a block of the Description that MLflow's UI shows.

The block stands between two comments, which the UI does not show. What others have written is left as it is:
a Description without the comments that is not empty is the user's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.summary.amounts import amount
from mlflow_sysmetrics.summary.rules import Verdict

#: The tag that MLflow's UI shows as a run's Description.
NOTE_TAG = "mlflow.note.content"
#: The tag `sys.verdict` of a run about which the rules say nothing any more.
NO_VERDICT = "-"

_BEGIN, _END = "<!-- mlflow-sysmetrics -->", "<!-- end of mlflow-sysmetrics -->"
_BLOCK = re.compile(re.escape(_BEGIN) + r".*?" + re.escape(_END), re.DOTALL)
_MOST = 500  # characters of a tag; older servers of MLflow take 5,000, and a column of the UI shows fewer
# What one line can hold: figure, and the words around it.
_FACTS = (
    ("measured_hours", "measured {}"),
    ("gpu_utilization_mean_percentage", "GPU {}"),
    ("gpu_idle_percentage", "idle {}"),
    ("gpu_hours", "{} of GPUs"),
    ("energy_watt_hours", "energy {}"),
    ("cpu_utilization_mean_percentage", "CPU {}"),
    ("memory_max_percentage", "memory up to {}"),
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def verdict_line(verdicts: Sequence[Verdict]) -> str:
    """Returns the verdict for the tag: its name, a colon and its text, then the names of the others."""
    if not verdicts:
        return NO_VERDICT
    first, *others = verdicts
    more = f" Also: {', '.join(dict.fromkeys(one.name for one in others))}." if others else ""
    return tag_line(first.name, first.text, more)


def tag_line(name: str, text: str, more: str = "") -> str:
    """Returns a name, a colon and a text, which is cut to fit, and what follows it."""
    room = _MOST - len(more) - len(name) - 2
    return f"{name}: {text if len(text) <= room else text[: room - 3] + '...'}{more}"


def block(verdicts: Sequence[Verdict], figures: Mapping[str, float], run_id: str) -> str:
    """Returns the block, the verdict first: the UI folds what is after the third line.

    Args:
        verdicts: at least one.
        figures: of the run, by their names in `summary.FIGURES`.
        run_id: the run.
    """
    parts = [f"**{one.name}**{_where(one)}: {one.text}" for one in verdicts]
    facts = [words.format(amount(name, figures[name])) for name, words in _FACTS if name in figures]
    text = ", ".join(facts)
    parts += [f"{text[0].upper()}{text[1:]}."] if facts else []
    parts.append(f"Curves, evidence and sources: `mlflow-sysmetrics report {run_id}`")
    return "\n".join((_BEGIN, "", "\n\n".join(parts), "", _END))


def with_block(text: str, new: str) -> str | None:
    """Returns a Description with a new block in the place of the old one; None if it is the user's.

    Args:
        text: the Description; "" for none.
        new: from `block`.
    """
    if not text.strip():
        return new
    replaced, count = _BLOCK.subn(lambda _: new, text, count=1)
    return replaced if count else None


def _where(verdict: Verdict) -> str:
    return " (node " + _SPECIAL.sub(r"\\\1", verdict.node) + ")" if verdict.node else ""
