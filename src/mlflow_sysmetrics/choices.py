"""What users choose by name: families of metrics, GPUs, the name of a node, and where alerts and reports go.

`settings` imports this module only if something is named, since `import mlflow` loads `settings`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family

# An item in a list of GPUs: an index, the start of a UUID, or, as Intel's GPUs have no UUID, a PCI address.
_GPU = re.compile(r"\d{1,4}|(?i:GPU|MIG)-[\w/-]+|[\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.[0-7]", re.ASCII)
_SWITCHED_OFF = frozenset({"off", "false", "0", "no"})
_GPU_CHOICES = ("visible", "process", "all")
_GPU_FORMS = f"one of {', '.join(_GPU_CHOICES)} or a list of indices and UUIDs"

_ADDRESS = re.compile(r"(?:[\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})", re.ASCII)
_HIGHEST_PORT = 65_535
_ADDRESS_FORMS = "HOST:PORT, such as 127.0.0.1:9600"
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_URL_FORMS = "the URL of a collector, such as http://127.0.0.1:4318, or on"
_ON = frozenset({"on", "true", "1", "yes"})

_NODE_ID_PART = r"(?!\.{1,2}(/|$))[\w\-. ]+"
_NODE_ID = re.compile(rf"{_NODE_ID_PART}(/{_NODE_ID_PART})*")
_NODE_ID_LENGTH = 150  # of the 250 characters of a metric name; our longest key takes less than 100

_ALERT = re.compile(r"cmd:\s*\S.*|https?://\S+")
_ALERT_FORMS = "log, off, cmd: with a command line, or the address of a webhook (https://...)"
_REPORT_FORMS = "artifact or off"

Report = Callable[[str, str], None]  #: called with a word that is wrong, and what is used instead


def read_families(text: str, report: Report) -> frozenset[Family]:
    """Returns the families that a list names; reports each word that names none.

    Plain words select families, signed words change the default: ``cpu,memory`` reads these two,
    ``-disk,+fabric`` the default families without disk and with fabric. ``all`` is every family,
    ``default`` those of an unset variable, ``none`` no family.
    """
    known = {family.value: frozenset({family}) for family in Family}
    known |= {"all": frozenset(Family), "default": DEFAULT_FAMILIES, "none": frozenset()}
    plain: list[frozenset[Family]] = []
    signed: dict[str, list[frozenset[Family]]] = {"+": [], "-": []}
    unknown: list[str] = []
    for word in _words(text.lower()):
        families = known.get(word.lstrip("+-"))
        if families is None:
            unknown.append(word)
        else:
            signed.get(word[0], plain).append(families)
    found = frozenset().union(*(plain or [DEFAULT_FAMILIES]), *signed["+"]).difference(*signed["-"])
    used = ",".join(sorted(family.value for family in found)) or "none"
    for word in unknown:
        report(word, f"is ignored, using {used}: {_no_family(word.lstrip('+-'), known)}")
    return found


def _no_family(word: str, known: Iterable[str]) -> str:
    """Returns the message about an unknown family, with the closest known name."""
    families = [family.value for family in Family]
    several = [name for name in known if name not in families]
    near = difflib.get_close_matches(word, [*families, *several], n=1)
    meant = f", did you mean {near[0]}?" if near else "."
    return f"no family has this name{meant} The families are {', '.join(families)}; also {', '.join(several)}"


def read_gpus(text: str, report: Report) -> str:
    """Returns which GPUs a text names; reports and leaves out list items that cannot name a GPU."""
    if text.lower() in _GPU_CHOICES:
        return text.lower()
    words = _words(text)
    used = ",".join(filter(_GPU.fullmatch, words)) or _GPU_CHOICES[0]
    for word in words:
        if not _GPU.fullmatch(word):
            report(word, f"is ignored, using {used}: it must be {_GPU_FORMS}")
    return used


def check_gpus(wanted: object) -> None:
    """Checks which GPUs a program names.

    Raises:
        SettingsError: an item of the list cannot name a GPU, or there is none.
    """
    words = _words(wanted) if isinstance(wanted, str) else []
    if wanted not in _GPU_CHOICES and not (words and all(map(_GPU.fullmatch, words))):
        raise SettingsError(f"gpus must be {_GPU_FORMS}, got {wanted!r}")


def check(node_id: str | None, gpus: object, alert: object, report: object) -> None:
    """Checks what a program chooses by name.

    Raises:
        SettingsError: one of them is not a choice.
    """
    check_node_id(node_id)
    if gpus != _GPU_CHOICES[0]:
        check_gpus(gpus)
    if alert not in {"log", "off"} and not (isinstance(alert, str) and _ALERT.fullmatch(alert)):
        raise SettingsError(f"alert must be {_ALERT_FORMS}, got {alert!r}")
    if report not in {"artifact", "off"}:
        raise SettingsError(f"report must be {_REPORT_FORMS}, got {report!r}")


def read_alert(text: str, report: Report) -> str:
    """Returns where alerts go; reports a text that says nothing about it."""
    word = text.lower()
    if word in _SWITCHED_OFF:
        return "off"
    if word == "log" or _ALERT.fullmatch(text):
        return "log" if word == "log" else text
    report(text, f"is ignored, using log: it must be {_ALERT_FORMS}")
    return "log"


def read_report(text: str, report: Report) -> str:
    """Returns whether runs get a report; reports a text that says nothing about it."""
    word = text.lower()
    if word == "artifact" or word in _SWITCHED_OFF:
        return "artifact" if word == "artifact" else "off"
    report(text, f"is ignored, using off: it must be {_REPORT_FORMS}")
    return "off"


def read_export(text: str, report: Report, *, is_url: bool) -> str | None:
    """Returns an address to show the last tick at, or a URL to send it to; reports one that is neither."""
    if is_url:
        found = "on" if text.lower() in _ON else text
        if found == "on" or _URL.fullmatch(found):
            return found
        report(text, f"is ignored: it must be {_URL_FORMS}")
        return None
    found = text if ":" in text else f"127.0.0.1:{text}"
    if _is_address(found):
        return found
    report(text, f"is ignored: it must be {_ADDRESS_FORMS}")
    return None


def check_exports(prometheus: object, otlp: object) -> None:
    """Checks where a program shows the last tick; None is nowhere.

    Raises:
        SettingsError: an address is not one.
    """
    if prometheus is not None and not (isinstance(prometheus, str) and _is_address(prometheus)):
        raise SettingsError(f"prometheus must be {_ADDRESS_FORMS}, got {prometheus!r}")
    if otlp is not None and not (isinstance(otlp, str) and (otlp == "on" or _URL.fullmatch(otlp))):
        raise SettingsError(f"otlp must be {_URL_FORMS}, got {otlp!r}")


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match[1]) <= _HIGHEST_PORT


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def read_node_id(text: str, report: Report) -> str:
    """Returns a node id; reports and replaces each character that a metric name cannot hold."""
    if _is_node_id(text):
        return text
    cleaned = re.sub(r"[^\w\-. /]|^/+|/+$|//+|(?<![^/])\.{1,2}(?![^/])", "_", text)
    cleaned = cleaned[:_NODE_ID_LENGTH].rstrip("/")
    report(text, f"is changed, using {cleaned}: not every MLflow accepts it in a metric name")
    return cleaned


def check_node_id(node_id: str | None) -> None:
    """Checks the name of a node; None is none.

    Raises:
        SettingsError: it cannot be part of a metric name.
    """
    if node_id is not None and not _is_node_id(node_id):
        raise SettingsError(
            f"node_id must be 1 to {_NODE_ID_LENGTH} letters, digits, '_', '-', '.', ' ' and single '/' "
            f"between parts, none of them '.' or '..', got {node_id!r}"
        )


def _is_node_id(text: str) -> bool:
    """Returns whether a text can be part of metric names in every MLflow from 2.0 on.

    This rule is for node ids only; for all other names `mlflow_api.metric_names` asks the installed MLflow.
    A node id is in the key of every system metric, and the server may be of an older version, so the colon
    that newer versions accept is excluded. Letters of any language are accepted by all.
    """
    return len(text) <= _NODE_ID_LENGTH and _NODE_ID.fullmatch(text) is not None
