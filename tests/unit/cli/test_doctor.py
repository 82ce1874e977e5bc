"""`doctor` prints findings as lines or as JSON, and exits with 1 if anything is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlflow_sysmetrics.cli import (
    effective_settings,
    installed,
    main,
    output,
    this_machine,
    tracking_server,
    waiting_points,
)
from mlflow_sysmetrics.cli.findings import Finding, Mark, print_finding, sign
from mlflow_sysmetrics.cli.output import say, wrapped

GOOD = Finding("MLflow", Mark.GOOD, "3.17.2")
ABSENT = Finding("Nvidia", Mark.ABSENT, "not available: no driver")
NOTE = Finding("left behind", Mark.NOTE, "3 points", "mlflow-sysmetrics sync")
WRONG = Finding("reachable", Mark.WRONG, "Connection refused", "start the server", {"seconds": 0.1})


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What `doctor` finds in the installation; the other sections stay empty."""
    findings: list[Finding] = [GOOD]
    for one in (installed, this_machine, tracking_server, waiting_points):
        of_it = findings if one is installed else []
        monkeypatch.setattr(one, "findings", lambda *_, of=of_it: of)
    return findings


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def last_lines(result: Result) -> Sequence[str]:
    return result.stdout.splitlines()[-2:]


@pytest.mark.usefixtures("found")
def test_without_faults_the_next_step_is_a_check() -> None:
    done = doctor()
    assert done.exit_code == 0
    assert last_lines(done)[0] == "Nothing is wrong."
    assert last_lines(done)[1].startswith("Next: mlflow-sysmetrics check")


def test_a_note_with_a_remedy_is_not_overlooked(found: list[Finding]) -> None:
    found.append(Finding("tracking URI", Mark.NOTE, "not set", "export MLFLOW_TRACKING_URI=..."))
    done = doctor()
    assert done.exit_code == 0
    assert last_lines(done)[0] == "Nothing is broken; see the 1 line marked !"
    assert last_lines(done)[1] == "Next: export MLFLOW_TRACKING_URI=... (tracking URI)"


def test_an_absent_source_is_not_wrong(found: list[Finding]) -> None:
    found.append(ABSENT)
    done = doctor()
    assert done.exit_code == 0
    assert "  \N{EN DASH} Nvidia  not available: no driver" in done.stdout


def test_a_note_is_not_wrong(found: list[Finding]) -> None:
    found.append(NOTE)
    done = doctor()
    assert done.exit_code == 0
    assert last_lines(done)[1] == "Next: mlflow-sysmetrics sync (left behind)"


def test_faults_are_summed_up_with_their_remedy(found: list[Finding]) -> None:
    found.extend([NOTE, WRONG])
    done = doctor()
    assert done.exit_code == 1
    assert last_lines(done) == ["1 thing is wrong: reachable.", "Next: start the server (reachable)"]


def test_an_invalid_variable_is_wrong(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    del found[:]
    monkeypatch.setenv("MLFLOW_SYSMETRICS_SEND_INTERVAL", "soon")
    done = doctor()
    assert done.exit_code == 1
    assert "send_interval           'soon' is ignored, using 10" in done.stdout


def test_a_section_that_raises_is_wrong_and_the_rest_is_shown(
    found: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Finding]:
        raise ModuleNotFoundError("No module named 'filelock'")

    del found[:]
    monkeypatch.setattr(this_machine, "findings", broken)
    done = doctor()
    assert done.exit_code == 1
    assert "ModuleNotFoundError: No module named 'filelock'" in " ".join(done.stdout.split())
    assert "Journals" in done.stdout


def test_a_long_remedy_is_not_repeated(found: list[Finding]) -> None:
    found.append(Finding("reachable", Mark.WRONG, "down", "look at this and that " * 5))
    assert last_lines(doctor())[1] == "Next: see reachable, above."


def test_json_has_every_finding_under_its_section(found: list[Finding]) -> None:
    found.append(WRONG)
    done = doctor("--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["ok"], document["next"]) == (1, False, ["start the server"])
    assert document["installed"][1] == {
        "name": "reachable",
        "state": "wrong",
        "text": "Connection refused",
        "remedy": "start the server",
        "seconds": 0.1,
    }
    assert {one["name"] for one in document["settings"]} >= {"providers", "spool_megabytes"}


def written(encoding: str, act: Any) -> str:
    """Returns what is printed to a standard output with that encoding."""
    raw = BytesIO()
    raw.close = lambda: None  # type: ignore[method-assign] - click wraps it again, and closes the wrapper
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", TextIOWrapper(raw, encoding=encoding, write_through=True))
        act()
    return raw.getvalue().decode(encoding)


def test_marks_are_ascii_if_the_output_cannot_encode_others() -> None:
    assert written("ascii", lambda: say(sign(Mark.WRONG))) == "x\n"
    assert written("utf-8", lambda: say(sign(Mark.WRONG))) == "✗\n"


def test_characters_that_the_output_cannot_encode_are_escaped() -> None:
    assert written("ascii", lambda: say("/home/zoë")) == "/home/zo\\xeb\n"


def test_control_characters_are_escaped() -> None:
    assert written("utf-8", lambda: say("a\x1b[31mb")) == "a\\x1b[31mb\n"


def test_a_long_text_stays_beside_its_name_within_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_FEWEST_COLUMNS", 40)
    lines = written("utf-8", lambda: print_finding(Finding("name", Mark.GOOD, "word " * 40), 6)).splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith(" " * 12 + "word")


def test_a_long_path_is_not_broken() -> None:
    path = "/" + "long-name/" * 10
    assert path in wrapped("  x  ", f"see {path}").split()


def test_every_setting_is_shown_with_its_origin() -> None:
    environ = {"MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "7"}
    texts = settings_of(environ)
    assert texts["flush_timeout"].text == "7 s (MLFLOW_SYSMETRICS_FLUSH_TIMEOUT=7)"
    assert texts["send_interval"].text == "10 s (default)"


def test_samples_default_to_mlflows_value_if_only_the_interval_is_set() -> None:
    found = settings_of({"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5"})["samples_before_logging"]
    assert found.text == "1 (MLflow's default, because MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is set)"
    assert found.more["origin"] == "mlflow default"


def test_an_invalid_setting_has_its_value_and_its_remedy() -> None:
    found = settings_of({"MLFLOW_SYSMETRICS_TAGS": "maybe"})["tags"]
    assert found.mark is Mark.WRONG
    assert found.text == "'maybe' is ignored, using true: it must be true or false"
    assert found.remedy == "correct or unset MLFLOW_SYSMETRICS_TAGS"


@pytest.mark.parametrize("value", ["https://me:s3cret@host/spool", "x" * 99 + "://me:s3cret@host"])
def test_a_secret_in_a_variable_is_not_shown(value: str) -> None:
    environ = dict.fromkeys(
        ("MLFLOW_SYSMETRICS_SPOOL_DIR", "MLFLOW_SYSMETRICS_SEND_INTERVAL", "MLFLOW_SYSMETRICS_GPUS"), value
    )
    assert "s3cret" not in json.dumps([one.document() for one in settings_of(environ).values()])


def test_an_invalid_variable_is_not_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    settings_of({"MLFLOW_SYSMETRICS_TAGS": "maybe"})
    assert caplog.text == ""


def settings_of(environ: dict[str, str]) -> dict[str, Finding]:
    """Returns the findings about settings, by name."""
    settings, complaints = effective_settings.read(environ)
    return {one.name: one for one in effective_settings.findings(settings, environ, complaints)}


def test_the_address_of_a_webhook_is_not_shown() -> None:
    found = settings_of({"MLFLOW_SYSMETRICS_ALERT": "https://hooks.example.org/T0/secret"})["alert"]
    assert "secret" not in f"{found.text} {found.more}"
    assert found.text.startswith("https://hooks.example.org/... (")
