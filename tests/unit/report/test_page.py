"""Pages: one file, no script, no request, and nothing of the user's is markup."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

pytest.importorskip("jinja2", reason="mlflow-skinny does not bring it")

from made_runs import BEGAN, FakeServer, busy, fleet, histories, starved
from mlflow_sysmetrics.report import interactive
from mlflow_sysmetrics.report.charts import Curves, draw
from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.experiment import tabulate
from mlflow_sysmetrics.report.measured_runs import read_run, read_runs
from mlflow_sysmetrics.report.one_run import RunReport, report_on
from mlflow_sysmetrics.report.page import experiment_page, run_page, runs_page

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</title></style></svg><b>",
    "\u202egnp.exe\x1b[31m\x00",
    "javascript:alert(1)",
    "&lt;script&gt;",
)
KNOWN = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "footer",
        "h1",
        "h2",
        "h3",
        "p",
        "a",
        "b",
        "strong",
        "dl",
        "div",
        "dt",
        "dd",
        "bdi",
        "figure",
        "figcaption",
        "span",
        "i",
        "svg",
        "rect",
        "path",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ]
)


class Parsed(HTMLParser):
    """Collects elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: dict[str, set[str | None]] = {}
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def report(server: FakeServer, run_id: str, costs: Costs | None = None) -> RunReport:
    run = read_run(server, run_id)
    assert run is not None
    return report_on(server, run, costs or Costs())


def of_run(server: FakeServer) -> str:
    return run_page(report(server, next(iter(server.runs))))


def of_runs(server: FakeServer) -> str:
    return runs_page([report(server, run_id) for run_id in list(server.runs)[:2]])


def of_experiment(server: FakeServer) -> str:
    return experiment_page(tabulate(server, "ships", read_runs(server, ["1"], None)), Costs())


every_page = pytest.mark.parametrize(
    "page_of", [of_run, of_runs, of_experiment], ids=["run", "runs", "experiment"]
)


@functools.cache
def hostile() -> FakeServer:
    """A server on which everything that a user names is hostile. Tests only read it."""
    server = FakeServer()
    for index, text in enumerate(HOSTILE):
        tags = dict.fromkeys(
            ("mlflow.user", "sys.hostname", "sys.cpu", "sys.verdict", "sys.gpu", "sys.job_id"), text
        )
        server.add(
            f"{index:032}",
            text,
            {
                **histories(busy, 20, node=text),
                **histories(starved, 20, node="b"),
                **histories(starved, 20, node="c"),
            },
            **tags,
        )
    return server


@every_page
def test_a_page_has_no_script_and_asks_for_nothing(page_of: Callable[[FakeServer], str]) -> None:
    page = page_of(fleet())
    parsed = Parsed(page)
    assert parsed.elements <= KNOWN
    assert not [one for one in parsed.attributes if one.startswith("on")]
    assert not parsed.attributes.keys() & {"src", "srcset", "data", "action", "xlink:href"}
    assert all(str(one).startswith("https://") for one in parsed.attributes.get("href", ()))
    assert not re.search(r"url\(|@import", page)


@every_page
def test_what_users_name_is_text(page_of: Callable[[FakeServer], str]) -> None:
    server = hostile()
    for index in range(0, len(HOSTILE), 2):
        both = FakeServer(dict(list(server.runs.items())[index : index + 2]), server.points)
        page = page_of(both)
        parsed = Parsed(page)
        assert parsed.elements <= KNOWN
        assert not [one for one in parsed.attributes if one.startswith("on")]
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)
    assert "<script>alert(1)</script>" in Parsed(page_of(server)).text


def test_the_page_of_a_run_says_what_was_found_and_shows_where() -> None:
    server = fleet()
    page = run_page(report(server, "2" * 32, Costs(carbon=400, price_per_gpu_hour=2)))
    text = Parsed(page).text
    for expected in (
        "gpu-starved",
        "alternated between",
        "evidence for gpu-starved",
        "AMD EPYC",
        "g CO2e",
        "in the currency of your prices",
    ):
        assert expected in text
    assert text.index("gpu-starved") < text.index("What it used") < text.index("Over time")


def test_a_run_without_a_verdict_says_so() -> None:
    server = FakeServer()
    server.add("1" * 32, "short", histories(busy, 1))
    page = run_page(report(server, "1" * 32))
    assert "No verdict" in page
    assert "healthy" not in Parsed(page).text


def test_energy_that_is_not_measured_is_named() -> None:
    assert "Energy not measured" in Parsed(run_page(report(fleet(), "1" * 32))).text


@pytest.mark.heavy
def test_a_page_of_a_week_on_eight_gpus_is_below_500_kilobytes() -> None:
    def tick(second: int) -> dict[str, float]:
        one = busy(second)
        eight = {
            key.replace("gpu_0", f"gpu_{number}"): value + number
            for number in range(8)
            for key, value in one.items()
        }
        return {**eight, "gpu_0_utilization_percentage": (second * 7919) % 100}

    server = FakeServer()
    server.add("1" * 32, "long", histories(tick, 7 * 24 * 60, every=300))
    assert len(run_page(report(server, "1" * 32)).encode()) < 500_000


def test_a_table_of_two_thousand_runs_is_below_500_kilobytes() -> None:
    server = FakeServer()
    summary = {"system/summary/gpu_hours": 8.0, "system/summary/gpu_idle_percentage": 25.0}
    for index in range(2000):
        server.add(
            f"{index:032}",
            f"capable-crow-{index}",
            {"system/gpu_0_utilization_percentage": [(1, 1.0)]},
            summary=summary,
        )
    page = experiment_page(tabulate(server, "ships", read_runs(server, ["1"], None)), Costs())
    assert len(page.encode()) < 500_000
    assert "1000 more runs" in Parsed(page).text


def test_curves_are_broken_where_nothing_was_measured() -> None:
    key = "system/cpu_utilization_percentage"
    points = [(second * 1000, 50.0) for second in (*range(0, 600, 10), *range(7200, 7800, 10))]
    (panel,) = draw([Curves("", 0, {key: points})], {}, 120).panels
    assert panel.lines[0].path.count("M") == 2


def test_gpus_are_in_the_order_of_their_numbers() -> None:
    points = {f"system/gpu_{number}_utilization_percentage": [(0, 1.0), (9000, 2.0)] for number in (10, 9, 0)}
    (panel,) = draw([Curves("", 0, points)], {}, 0).panels
    assert [line.label for line in panel.lines] == ["GPU 0", "GPU 9", "GPU 10"]


@pytest.mark.parametrize(
    ("high", "top"),
    [(1e-320, "1"), (0.03, "0.05"), (7, "10"), (130, "200"), (1000, "1,000"), (51_742, "100,000")],
)
def test_the_axis_ends_at_a_round_number(high: float, top: str) -> None:
    points = {"system/cpu_power_watts": [(0, 0.0), (9000, high)]}
    (panel,) = draw([Curves("", 0, points)], {}, 0).panels
    assert panel.top == top


def test_two_runs_of_the_same_name_are_told_apart() -> None:
    server = FakeServer()
    for run_id in ("1" * 32, "2" * 32):
        server.add(run_id, "resnet", histories(busy, 20))
    text = Parsed(runs_page([report(server, run_id) for run_id in server.runs])).text
    assert "resnet (1)" in text
    assert "resnet (2)" in text


@pytest.mark.heavy
def test_the_interactive_page_asks_for_nothing_and_is_below_six_megabytes() -> None:
    pytest.importorskip("plotly")
    server = hostile()
    both = FakeServer(dict(list(server.runs.items())[:2]), server.points)
    reports = [report(both, run_id) for run_id in both.runs]
    for page in (run_page(reports[0], interactive=True), runs_page(reports, interactive=True)):
        assert len(page.encode()) < 6_000_000
        assert not re.search(r"<script[^>]* src=|<link", page)
        assert "script-src 'unsafe-inline'" in page
        ours = page.rpartition("Plotly.newPlot(")[2]
        assert "alert(1)" in ours
        assert "<" not in ours.partition("</script>")[0]
        assert "\u202e" not in page


def test_interactive_curves_are_broken_where_nothing_was_measured() -> None:
    pytest.importorskip("plotly")
    points = [(second * 1000, 50.0) for second in (*range(0, 600, 10), *range(7200, 7800, 10))]
    _, values = interactive._coordinates(points, 0, 1500)
    assert values.count(None) == 1


def test_values_that_a_program_has_logged_as_nan_or_huge_do_no_harm() -> None:
    server = FakeServer()
    points = histories(starved, 20)
    points["system/gpu_0_utilization_percentage"][5] = (BEGAN + 50_000, float("nan"))
    points["system/cpu_utilization_percentage"][7] = (BEGAN + 70_000, float("inf"))
    points["system/process_memory_rss_megabytes"] = [(BEGAN, 1e308), (BEGAN, -1e308), (BEGAN + 1, 0.0)]
    points["system/cpu_power_watts"] = [(BEGAN, float("nan"))]
    server.add("1" * 32, "odd", points)
    one = report(server, "1" * 32)
    assert [verdict.name for verdict in one.verdicts] == ["gpu-starved"]
    assert "nan" not in run_page(one).partition("Over time")[2]


@pytest.mark.parametrize(("count", "marks"), [(3, 3), (1000, 0)])
def test_ends_of_epochs_are_marked_on_the_axis(count: int, marks: int) -> None:
    server = FakeServer()
    epochs = [(BEGAN + (number + 1) * 3_000_000 // count, 0.5) for number in range(count)]
    server.add("run", "epochs", {**histories(busy), "epoch/val_loss": epochs})
    page = run_page(report(server, "run"))
    curves = page.count("<figure>")
    assert page.count('<path class="epoch"') == marks * curves
    assert f"{count} epochs" in Parsed(page).text


def test_a_run_without_epochs_says_nothing_about_them() -> None:
    assert " epoch" not in of_run(fleet()).partition("</style>")[2]
