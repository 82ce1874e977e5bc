"""What of a board is shown, and which key changes that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from mlflow_sysmetrics.exports.readings import METRICS, metric_of
from mlflow_sysmetrics.live.board import Board, WatchedRun
from mlflow_sysmetrics.report.measured_runs import split_key
from mlflow_sysmetrics.samples import Family, Metric

SPANS = ((5, "5 min"), (15, "15 min"), (60, "1 h"), (360, "6 h"))  #: minutes shown, and their name
MAIN, ALL = "main", "all"
#: What a first look needs, of each node and GPU.
MAIN_METRICS = frozenset(
    {
        "gpu_{i}_utilization_percentage",
        "gpu_{i}_memory_usage_percentage",
        "gpu_{i}_power_usage_watts",
        "cpu_utilization_percentage",
        "cpu_throttled_percentage",
        "system_memory_usage_percentage",
        "io_pressure_percentage",
        "process_cpu_percentage",
        "process_memory_rss_megabytes",
        "disk_busy_percentage",
        "network_receive_megabytes_per_second",
    }
)
_ORDER = (
    *(Family.GPU, Family.CPU, Family.MEMORY, Family.PROCESS, Family.PRESSURE, Family.DISK, Family.NETWORK),
    *(Family.FABRIC, Family.ENERGY, Family.GPU_PROFILE),
)
_PLACES = {metric.name: place for place, metric in enumerate(METRICS)}
_NOT_OURS = "other"  # the family of what others log under system/


class Shown(NamedTuple):
    """One series of a run.

    Attributes:
        key: its whole key.
        node: id of its node, "" for none.
        family: name of its family.
        device: ordinal of its GPU or name of its filesystem, "" for neither.
        name: the name of its metric, as in the catalogue.
        metric: its metric; None for one that is not ours.
    """

    key: str
    node: str
    family: str
    device: str
    name: str
    metric: Metric | None


@dataclass(slots=True)
class View:
    """The choices of the person at the keyboard.

    Attributes:
        family: name of a family, `MAIN` or `ALL`.
        node: id of a node; None for all.
        span: index in `SPANS`.
        offset: lines scrolled.
        cursor: line of the list of runs.
        help: whether the keys are explained.
        over: whether to leave.
    """

    family: str = MAIN
    node: str | None = None
    span: int = 1
    offset: int = 0
    cursor: int = 0
    help: bool = False
    over: bool = False

    def press(self, key: str, board: Board) -> None:
        """Does what a key stands for; others do nothing."""
        if key == "q":
            self.over = True
        elif key in {"?", "h"}:
            self.help = not self.help
        elif key in {"+", "-"}:
            self.span = min(max(self.span + (1 if key == "-" else -1), 0), len(SPANS) - 1)
        elif board.chosen is None:
            self._press_in_list(key, board)
        else:
            self._press_in_run(key, board, board.runs.get(board.chosen))

    def _press_in_list(self, key: str, board: Board) -> None:
        ids = [*board.runs]
        if key in {"up", "k", "down", "j"} and ids:
            self.cursor = min(max(self.cursor + (1 if key in {"down", "j"} else -1), 0), len(ids) - 1)
        elif key in {"enter", "right"} and ids:
            board.chosen = ids[min(self.cursor, len(ids) - 1)]
            self.offset, self.node = 0, None

    def _press_in_run(self, key: str, board: Board, run: WatchedRun | None) -> None:
        if key in {"b", "escape"} and len(board.runs) > 1:
            board.chosen = None
        elif key in {"up", "k", "down", "j", "pageup", "pagedown", "space"}:
            step = 10 if key in {"pageup", "pagedown", "space"} else 1
            self.offset = max(self.offset + (-step if key in {"up", "k", "pageup"} else step), 0)
        elif run is None:
            return
        elif key in {"f", "F", "right", "left"}:
            names = families_of(run)
            place = names.index(self.family) if self.family in names else 0
            self.family = names[(place + (1 if key in {"f", "right"} else -1)) % len(names)]
            self.offset = 0
        elif key in {"n", "N", "tab"}:
            several = run.nodes if len(run.nodes) > 1 else []
            nodes: list[str | None] = [None, *sorted(several, key=_natural)]
            place = nodes.index(self.node) if self.node in nodes else 0
            self.node = nodes[(place + (-1 if key == "N" else 1)) % len(nodes)]
            self.offset = 0


def shown_series(run: WatchedRun, view: View) -> list[Shown]:
    """Returns the series of a run that a view has, in their order: by node, family and device."""
    found = (_shown(key) for key in run.series)
    return sorted((one for one in found if _is_in(view, one)), key=_rank)


def _is_in(view: View, one: Shown) -> bool:
    if view.node not in {None, one.node}:
        return False
    if view.family == MAIN:
        return one.name in MAIN_METRICS
    return view.family in {ALL, one.family}


def is_main(key: str) -> bool:
    """Returns whether a series, by its whole key, is one of those that a first look needs."""
    return _shown(key).name in MAIN_METRICS


def families_of(run: WatchedRun) -> list[str]:
    """Returns what a view can choose: the main series, each family that the run has, everything."""
    present = {_shown(key).family for key in run.series}
    ordered = [family.value for family in _ORDER if family.value in present]
    return [MAIN, *ordered, *([_NOT_OURS] if _NOT_OURS in present else []), ALL]


def _shown(key: str) -> Shown:
    node, name = split_key(key)
    metric, device = metric_of(name)
    family = metric.family.value if metric is not None else _NOT_OURS
    return Shown(key, node, family, device, name if metric is None else metric.name, metric)


def _rank(one: Shown) -> tuple[object, ...]:
    family = next((place for place, known in enumerate(_ORDER) if known.value == one.family), len(_ORDER))
    is_gpu = family == 0 or one.family == Family.GPU_PROFILE.value
    device = (int(one.device), "") if one.device.isdecimal() and is_gpu else (0, one.device)
    return (_natural(one.node), family, device, _PLACES.get(one.name, len(_PLACES)), one.key)


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """Returns what sorts node_10 after node_2."""
    parts = re.split(r"([0-9]+)", text)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
