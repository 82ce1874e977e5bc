"""docs/how_to/exports.md and the dashboard have the names of the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from mlflow_sysmetrics.exports.names import EXPORTED, UNDER_LIMIT
from mlflow_sysmetrics.exports.prometheus import RUN_INFO, RUN_LABEL, TICK_AGE

ROOT = Path(__file__).parents[3]
BOARD = json.loads((ROOT / "deploy" / "grafana" / "mlflow-sysmetrics.json").read_text(encoding="utf-8"))
EXPORTS = [*EXPORTED.values(), *UNDER_LIMIT.values()]
SERIES = {one.prometheus for one in EXPORTS} | {RUN_INFO, TICK_AGE}
LABELS = {
    *(name.replace(".", "_") for one in EXPORTS for name in (*one.attributes, one.device) if name),
    *(RUN_LABEL, "instance", "job"),
}
WORDS = {"and", "on", "rate", "increase"}
VARIABLES = (("$__rate_interval", "5m"), ("$instance", ".*"), ("$run", ".*"))


def targets() -> Iterator[dict[str, Any]]:
    for panel in BOARD["panels"]:
        yield from panel.get("targets", ())


EXPRESSIONS = [target["expr"] for target in targets()]


def names_in(expression: str) -> set[str]:
    """Returns the series, labels and functions of an expression."""
    without_texts = re.sub(r'"[^"]*"|\[[^]]*\]', "", expression)
    return set(re.findall(r"[A-Za-z_:][\w:]*", without_texts))


def test_the_page_has_the_names_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = import_module("make_exports_page")
    text = script.PAGE.read_text(encoding="utf-8")
    assert text == script.page(text), "run scripts/make_exports_page.py"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_of_the_dashboard_uses_exported_names(expression: str) -> None:
    found = names_in(expression) - WORDS
    assert found & SERIES > {RUN_INFO}
    assert found - SERIES <= LABELS


def test_counters_are_shown_by_their_growth_and_levels_as_they_are() -> None:
    for expression in EXPRESSIONS:
        (series,) = names_in(expression) & SERIES - {RUN_INFO}
        assert series.endswith("_total") == expression.startswith(("rate(", "increase(")), expression


def test_legends_use_exported_labels() -> None:
    used = {name for target in targets() for name in re.findall(r"{{(\w+)}}", target["legendFormat"])}
    assert used <= LABELS


def test_variables_and_panels_of_the_dashboard_are_sound() -> None:
    variables = {one["name"] for one in BOARD["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", " ".join(EXPRESSIONS))) - {"__rate_interval"} <= variables
    for one in BOARD["templating"]["list"][1:]:
        assert names_in(one["definition"]) - {"label_values"} <= SERIES | LABELS
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["description"] for panel in BOARD["panels"] if panel["type"] != "row")


def test_promtool_understands_the_expressions(tmp_path: Path) -> None:
    """Only where it is installed; the names are checked always."""
    tool = shutil.which("promtool")
    if tool is None:
        return
    rules = []
    for number, expression in enumerate(EXPRESSIONS):
        for variable, value in VARIABLES:
            expression = expression.replace(variable, value)  # noqa: PLW2901 - filled in
        rules.append({"record": f"panel:{number}", "expr": expression})
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([tool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
