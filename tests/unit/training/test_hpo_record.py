"""What is written to the run of a trial."""

from __future__ import annotations

import csv
import datetime as dt
import io

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from mlflow_sysmetrics.training.hpo import outcome, summary
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.optuna_study import trial_run_name
from mlflow_sysmetrics.training.hpo.trial_run import trial_metrics, trial_tags
from mlflow_sysmetrics.training.run_writes import key_of, params_of

ONE = Objectives(("f1",), ("maximize",))


def test_run_names_count_from_one() -> None:
    assert [trial_run_name(number) for number in (0, 8, 9999)] == ["trial_0001", "trial_0009", "trial_10000"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lr", "hpo/lr"),
        ("optimizer.lr", "hpo/optimizer.lr"),
        ("a/b", "hpo/a/b"),
        ("a(b):c", "hpo/a_b__c"),
        ("../x", "hpo/x"),
        ("/", "hpo/_"),
        ("..", "hpo/_"),
        ("x" * 300, "hpo/" + "x" * 246),
    ],
)
def test_a_name_becomes_a_valid_mlflow_key(name: str, key: str) -> None:
    assert key_of("hpo", name) == key


def test_names_that_become_equal_get_distinct_keys() -> None:
    assert params_of("hpo", {"a(": 1, "a)": 2}) == {"hpo/a_": "1", "hpo/a__2": "2"}


def test_a_long_value_is_cut_and_ends_in_an_ellipsis() -> None:
    (value,) = params_of("hpo", {"text": "y" * 9000}).values()
    assert len(value) == 6000
    assert value.endswith("y...")


def test_reported_values_are_a_curve_without_nan() -> None:
    trial = create_trial(
        state=TrialState.COMPLETE, value=1.0, intermediate_values={1: 0.5, 0: 0.25, 2: float("nan")}
    )
    metrics = trial_metrics(trial, outcome.completed((1.0,), 2.0), ONE)
    curve = [(one.step, one.value) for one in metrics if one.key == "trial/intermediate_value"]
    assert curve == [(0, 0.25), (1, 0.5)]
    assert {one.key for one in metrics} == {
        "trial/f1",
        "trial/number",
        "trial/duration_seconds",
        "trial/intermediate_value",
    }


def test_a_failed_trial_has_no_value() -> None:
    trial = create_trial(state=TrialState.FAIL)
    metrics = trial_metrics(trial, outcome.raised(ValueError("x"), 2.0), ONE)
    assert {one.key for one in metrics} == {"trial/number", "trial/duration_seconds"}


@pytest.mark.parametrize(
    ("state", "error", "status", "reason"),
    [
        (TrialState.COMPLETE, None, "FINISHED", None),
        (TrialState.PRUNED, None, "KILLED", "pruned"),
        (TrialState.FAIL, "ValueError: x", "FAILED", "ValueError: x"),
        (TrialState.FAIL, None, "KILLED", "its process ended before the trial did"),
    ],
)
def test_the_outcome_of_a_trial_that_only_optuna_knows(
    state: TrialState, error: str | None, status: str, reason: str | None
) -> None:
    attributes = {} if error is None else {"error": error}
    value = 1.0 if state is TrialState.COMPLETE else None
    found = outcome.from_optuna(create_trial(state=state, value=value, user_attrs=attributes), None)
    assert (found.status, found.reason) == (status, reason)
    assert trial_tags(found)[0].value == state.name


def test_a_dead_trial_ended_when_its_run_last_received_data() -> None:
    trial = create_trial(state=TrialState.FAIL)
    local = dt.datetime.fromtimestamp(2000, tz=dt.timezone.utc).astimezone()
    trial.datetime_complete = local.replace(tzinfo=None)  # as Optuna stores it
    assert outcome.from_optuna(trial, 5_000).ended_at == 5_000
    assert outcome.from_optuna(trial, None).ended_at == 2_000_000


@pytest.mark.parametrize(
    "said", ["Authorization: Bearer abcdef1234567890", "no answer from http://user:abcdef1234567890@host/"]
)
def test_no_text_of_an_outcome_contains_credentials(said: str) -> None:
    trial = create_trial(state=TrialState.FAIL, user_attrs={"error": said})
    for found in (
        outcome.raised(OSError(said), 1.0),
        outcome.pruned(said, 1.0),
        outcome.unusable(said, 1.0),
        outcome.from_optuna(trial, None),
    ):
        assert "abcdef1234567890" not in f"{found.reason} {found.error}"
    assert "abcdef1234567890" not in outcome.one_line(OSError(said))


def test_an_interruption_is_not_a_failure() -> None:
    found = outcome.raised(KeyboardInterrupt(), 1.0)
    assert (found.status, found.error) == ("KILLED", None)


def test_the_table_has_a_column_for_each_parameter() -> None:
    choice = CategoricalDistribution(["a,b", 'c"d'])
    trials = [
        create_trial(value=1.0, params={"kind": "a,b"}, distributions={"kind": choice}),
        create_trial(state=TrialState.WAITING),
        create_trial(state=TrialState.FAIL, user_attrs={"error": "two\nlines"}),
        create_trial(value=2.0, params={"other": 'c"d'}, distributions={"other": choice}),
    ]
    rows = list(csv.DictReader(io.StringIO(summary.trials_table(trials, ONE))))
    assert [row["state"] for row in rows] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert [row["hpo/kind"] for row in rows] == ["a,b", "", ""]
    assert [row["hpo/other"] for row in rows] == ["", "", 'c"d']
    assert rows[1]["error"] == "two\nlines"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('=HYPERLINK("http://example.org","x")', '\'=HYPERLINK("http://example.org","x")'),
        ("@SUM(1)", "'@SUM(1)"),
        ("+cmd|x", "'+cmd|x"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("\uff1d1", "'\uff1d1"),  # full-width, which some spreadsheets take for the sign
        ("-1.5", "-1.5"),
        (-1.5, "-1.5"),
        (True, "True"),
        ("a=b", "a=b"),
    ],
)
def test_a_text_is_no_formula_in_a_spreadsheet(value: str | float, cell: str) -> None:
    trial = create_trial(
        value=1.0,
        params={"p": value},
        distributions={"p": CategoricalDistribution([value])},
        user_attrs={"error": value if isinstance(value, str) else ""},
    )
    table = summary.trials_table([trial], Objectives(("=loss",), ("minimize",)))
    (row,) = csv.DictReader(io.StringIO(table))
    assert row["hpo/p"] == cell
    assert row["error"] == (cell if isinstance(value, str) else "")
    assert row["'=loss"] == "1.0"


@pytest.mark.heavy
def test_names_are_only_text_in_the_page() -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    study = optuna.create_study(study_name="</script><script>alert(1)</script>")
    study.add_trial(
        create_trial(
            value=1.0,
            params={"<img src=x>": "</script><b>"},
            distributions={"<img src=x>": CategoricalDistribution(["</script><b>"])},
        )
    )
    page = summary.history_page(study, Objectives(("</script><i>",), ("minimize",)), include_plotlyjs="cdn")
    assert page is not None
    assert "</script><" not in page.replace("</script>\n", "").replace("</script>        </div>", "")
    assert "<img" not in page


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_objectives_is_drawn(count: int) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    names = tuple(f"metric_{index}" for index in range(count))
    study = optuna.create_study(study_name="drawn", directions=["maximize"] * count)
    study.add_trials([create_trial(values=[float(number)] * count) for number in range(3)])
    page = summary.history_page(study, Objectives(names, ("maximize",) * count), include_plotlyjs="cdn")
    assert page is not None
    assert all(name in page for name in names)
    assert ("Pareto front of drawn" in page) is (count in {2, 3})
    assert ("best so far" in page) is (count == 1)
