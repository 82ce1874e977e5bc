"""docs/coming_from/what_you_have.md keeps what it promises: a test for each row of its tables."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points, requires
from pathlib import Path
from typing import Any, NamedTuple

import forks
import pytest
from programs import HERE, PATIENT, QUIET, Store

import mlflow_sysmetrics
from mlflow_sysmetrics import errors, settings
from mlflow_sysmetrics.facts import fact_list, gpus
from mlflow_sysmetrics.runtime.distribution import distribution_name
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.training import system_metrics

pytest.importorskip("torch")
pytest.importorskip("optuna")
pytest.importorskip("mlflow_sysmetrics.training.trainer.engines")

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "coming_from" / "what_you_have.md").read_text(encoding="utf-8")


class Row(NamedTuple):
    """A row of a table: what a project has, and what takes its place."""

    there: str
    here: str

    @property
    def names(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.there)

    @property
    def ours(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.here)


ROWS = [Row(*found) for found in re.findall(r"^\| (?!there)(\S.*?) \| (.*?) \|$", PAGE, re.MULTILINE)]


class Logged(NamedTuple):
    """What the two commands of the page have left in their store, and a model registered with one line."""

    store: Store
    train: Any
    study: Any
    trials: list[Any]
    printed: str

    def steps(self, key: str) -> list[int]:
        return [point.step for point in self.store.points(self.train.info.run_id, key)]

    def artifacts(self, run: Any) -> set[str]:
        found = [one.path for one in self.store.client.list_artifacts(run.info.run_id)]
        inner = [self.store.client.list_artifacts(run.info.run_id, path) for path in found]
        return {*found, *(one.path for several in inner for one in several)}


REGISTERED = """
import mlflow, torch
from mlflow_sysmetrics import register_model
with mlflow.start_run():
    version = register_model(torch.nn.Linear(10, 2), "test_model", stage="Staging", pip_requirements=["torch"])
print(f"Registered model version: {version}")
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Logged:
    """Runs the commands that the page names, as it names them."""
    folder = tmp_path_factory.mktemp("migrating")
    shutil.copy(empty_database, folder / "mlflow.db")
    [train] = [row.ours[0] for row in ROWS if " train task=" in row.here]
    [search] = [row.ours[0] for row in ROWS if " hpo stage=" in row.here]
    store = Store(f"sqlite:///{folder / 'mlflow.db'}")
    environ = {**os.environ, **QUIET, **PATIENT}
    options = {"cwd": folder, "timeout": 400, "check": True, "modules": forks.LEARNING}
    programs = [train.split()[1:], search.split()[1:], ["-c", REGISTERED]]
    done = [
        forks.run(one, env={**environ, "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, **options)
        for one in programs
    ]
    runs = {}
    for name in ("training_criteria", "hpo_criteria"):
        experiment = store.client.get_experiment_by_name(name).experiment_id
        runs |= {run.info.run_name: run for run in store.client.search_runs([experiment])}
    trials = [run for name, run in sorted(runs.items()) if name.startswith("trial_")]
    [training] = [run for name, run in runs.items() if not name.startswith(("trial_", "HPO_"))]
    return Logged(
        store, training, runs["HPO_criteria_stage0"], trials, "".join(one.stdout + one.stderr for one in done)
    )


def resolved(dotted: str) -> Any:
    """Returns what a dotted name below this package names."""
    found: Any = import_module("mlflow_sysmetrics")
    for name in dotted.split(".")[1:]:
        try:
            found = getattr(found, name)
        except AttributeError:
            found = import_module(f"{found.__name__}.{name}")
    return found


def of_callable(row: Row) -> bool:
    """A function or class has the parameters in parentheses; the first are positional as a caller has them."""
    calls = [found for one in row.ours if (found := re.fullmatch(r"(mlflow_sysmetrics[\w.]+)\((.*)\)", one))]
    for call in calls:
        parameters = inspect.signature(resolved(call[1])).parameters
        assert set(filter(None, call[2].split(", "))) <= set(parameters)
        if call[2].startswith("model, train_loader"):
            assert list(parameters)[:6] == call[2].split(", ")
    return bool(calls)


def of_module(row: Row) -> bool:
    """A module, or a class that is an error of the kind that the row says."""
    dotted = [one for one in row.ours if re.fullmatch(r"mlflow_sysmetrics[\w.]+", one)]
    for one in dotted:
        found = resolved(one)
        if "a RuntimeError" in row.here or one.endswith("Error"):
            assert issubclass(found, RuntimeError)
            assert issubclass(found, errors.SysMetricsError)
    return bool(dotted)


def of_variable(row: Row) -> bool:
    """A variable of the environment is one that the settings have."""
    known = {value for value in vars(settings).values() if isinstance(value, str)}
    found = [one.partition("=")[0] for one in row.ours if re.fullmatch(r"MLFLOW_SYS\w+=\S+", one)]
    assert set(found) <= known
    return bool(found)


def of_machine(row: Row) -> bool:
    """A tag or a metric of MLflow's monitor."""
    [name, *_] = row.names or [""]
    if name.startswith("sys.") or name == "sysmetrics.error":
        texts = "".join(
            map(inspect.getsource, (fact_list, gpus, import_module("mlflow_sysmetrics.providers")))
        )
        others = inspect.getsource(import_module("mlflow_sysmetrics.facts.discovery"))
        assert f'"{name}"' in texts + others
        return True
    if row.here == "the same" and name.startswith("system/"):
        assert name.removeprefix("system/") in {sample.key for sample in HERE}
        return True
    return False


def of_series(row: Row, logged: Logged) -> bool:
    """A metric has a point at each step that its axis has."""
    [name, *_] = row.names or [""]
    how = row.here.removeprefix("the same, ")
    steps = list(range(1, 19))  # 9 batches in each of two epochs
    axes = {"by step": steps, "by epoch": [1, 2], "at the last step": [18]}
    if how == "by step, on a GPU":
        assert name.removeprefix("system/") in {known for known, *_ in system_metrics._GPU}
    elif how in axes:
        found = logged.steps(name)
        assert found == (steps[1::2] if name.startswith("system/") else axes[how])
    return how in axes or how == "by step, on a GPU"


def of_runs(row: Row, logged: Logged) -> bool:
    """Parameters, metrics and artifacts of a run."""
    runs = {"run of the study": [logged.study], "run of a trial": logged.trials}
    [where] = [those for words, those in runs.items() if words in row.here] or [[logged.train]]
    [name, *_] = row.names or [""]
    if row.there.startswith("the parameter"):
        assert all(name in run.data.params for run in where)
    elif "artifact" in row.here:
        assert name in logged.artifacts(logged.study if "study" in row.here else logged.train)
    elif "on the run of" in row.here:
        assert all(name in run.data.metrics for run in where)
    else:
        return False
    return True


RULES: list[Callable[[Row, Logged], bool]] = [
    lambda row, _: of_callable(row),
    lambda row, _: of_module(row),
    lambda row, _: of_variable(row),
    lambda row, _: of_machine(row),
    of_series,
    of_runs,
]
ONE_BY_ONE: dict[str, Callable[[Row, Logged], None]] = {}  # by the beginning of a row
Check = Callable[[Row, Logged], None]


def about(*beginnings: str) -> Callable[[Check], Check]:
    """Makes a function the check of the rows that begin with these words, in addition to the rules above."""

    def added(check: Check) -> Check:
        ONE_BY_ONE.update(dict.fromkeys(beginnings, check))
        return check

    return added


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@about("`pip install mlflow-sysmetrics`")
def _installed_from_a_clone(row: Row, logged: Logged) -> None:
    assert f"\n{row.ours[0]}\n" in text_of("README.md")


@about("Python 3.9")
def _floors(row: Row, logged: Logged) -> None:
    project = text_of("pyproject.toml")
    assert 'requires-python = ">=3.10"' in project
    assert '"mlflow>=2.0"' in project


@about("`export MLFLOW_RUN_CONTEXT_PROVIDER")
def _providers_stay_on(row: Row, logged: Logged) -> None:
    name, _, value = row.names[0].removeprefix("export ").partition("=")
    assert Settings.from_environ({name: value}).providers
    assert not Settings.from_environ({name: "another"}).providers


@about("`sysmetrics = ")
def _entry_point(row: Row, logged: Logged) -> None:
    found = entry_points(group="mlflow.run_context_provider")
    assert found["sysmetrics"].load() is mlflow_sysmetrics.SysMetricsRunContextProvider


@about("`from mlflow_sysmetrics import")
def _import(row: Row, logged: Logged) -> None:
    exec(row.names[0], {})


@about("`pytest -m unit`")
def _markers(row: Row, logged: Logged) -> None:
    project = text_of("pyproject.toml")
    assert all(f'"{name.rpartition(" ")[2]}: ' in project for name in row.names)


@about("`python scripts/debug_run.py`", "`assets/debug_run.png`", "a scheduler that looks")
def _file(row: Row, logged: Logged) -> None:
    assert (ROOT / (row.names or ["examples/model_lifecycle/scheduler.py"])[0].rpartition(" ")[2]).is_file()


@about("`mlflow.enable_system_metrics_logging()`", "`mlflow.set_system_metrics")
def _switch_of_mlflow(row: Row, logged: Logged) -> None:
    import mlflow

    for name in re.findall(r"mlflow\.(\w+)\(", row.there.replace("mlflow.config", "mlflow") + row.here):
        assert callable(getattr(mlflow, name))
        assert callable(getattr(mlflow.config, name))
    assert logged.train.data.tags["sys.metrics"] == "on"  # of a program that calls none of them


@about("a class variable and a lock", "a handler at exit")
def _one_thread_and_nothing_to_stop(row: Row, logged: Logged) -> None:
    """The example's program does neither; its last point is that of the end of its run."""
    assert row.here.startswith("not needed")
    run = logged.train
    [*_, last] = logged.store.points(run.info.run_id, "system/system_memory_usage_percentage")
    assert run.info.end_time - last.timestamp < 10_000


@about("`Started monitoring")
def _lines(row: Row, logged: Logged) -> None:
    source = inspect.getsource(import_module("mlflow_sysmetrics.daemon.state"))
    assert all(f'"{words}' in source for words in row.ours)
    assert not any(words in logged.printed for words in row.names)


@about("a script that looks", "a script of four tests")
def _command(row: Row, logged: Logged) -> None:
    from click import Context

    from mlflow_sysmetrics.cli import main
    from mlflow_sysmetrics.preflight.verification import STEPS

    assert row.ours[0].removeprefix("mlflow-sysmetrics ") in main.list_commands(Context(main))
    assert "tests" not in row.there or len(STEPS) == len(row.there.split(", ")) == 4


@about('`results["best_val_f1_macro"]`')
def _key_of_the_summary(row: Row, logged: Logged) -> None:
    """The example prints it."""
    assert re.search(r"val_f1_macro 0\.\d+", logged.printed)
    assert "final/best_val_f1_macro" in logged.train.data.metrics


@about("`print(f")
def _one_line(row: Row, logged: Logged) -> None:
    line = "Registered model version: test_model, version 1, stage Staging, alias staging"
    assert line in logged.printed.splitlines()


@about("one line of Python")
def _in_staging(row: Row, logged: Logged) -> None:
    [version] = logged.store.client.search_model_versions("name='test_model'")
    assert (int(version.version), version.current_stage) == (1, "Staging")


@about("`poetry add")
def _requirements(row: Row, logged: Logged) -> None:
    ours = " ".join(requires(distribution_name()) or ())
    assert all(name in ours for name in ("psutil", "nvidia-ml-py"))
    assert any(one.startswith("pandas") for one in requires("mlflow") or ())


@about("`python -m PACKAGE.cli train", "`mlflow ui")
def _trained(row: Row, logged: Logged) -> None:
    assert logged.train.info.status == "FINISHED"
    assert logged.train.data.metrics["final/best_val_f1_macro"] > 0.3  # guessing has 0.1
    values = {
        "model.encoder_name": "bag-of-words",
        "training.batch_size": "32",
        "training.optimizer.lr": "0.05",
    }
    assert values.items() <= logged.train.data.params.items()
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in logged.printed


@about("`python -m PACKAGE.cli hpo")
def _searched(row: Row, logged: Logged) -> None:
    assert logged.study.info.status == "FINISHED"
    assert len(logged.trials) == 4
    assert "4 of 4 trials completed" in logged.printed
    for run in logged.trials:
        assert {"train/loss_step", "epoch/val_f1_macro"} <= run.data.metrics.keys()
    # A rate needs two readings: a forked trial may be over before the second.
    assert any("system/cpu_percent" in run.data.metrics for run in logged.trials)


@about("larger `logging_steps`")
def _intervals(row: Row, logged: Logged) -> None:
    assert set(row.names) <= set(inspect.signature(mlflow_sysmetrics.Trainer).parameters)


@about("`model/`")
def _model(row: Row, logged: Logged) -> None:
    import mlflow

    uri = row.ours[0].replace("RUN", logged.train.info.run_id)
    mlflow.set_tracking_uri(logged.store.uri)
    assert mlflow.models.get_model_info(uri).signature is not None


@about("the run `HPO_criteria_stage0`", "the runs `trial_0001`")
def _names_of_runs(row: Row, logged: Logged) -> None:
    runs = {run.info.run_name: run for run in (logged.study, *logged.trials)}
    assert set(row.names) <= set(runs)
    assert {run.data.tags["mlflow.parentRunId"] for run in logged.trials} == {logged.study.info.run_id}


@about("pauses of 10, 20, 30, 30 s")
def _pauses(row: Row, logged: Logged) -> None:
    parameters = inspect.signature(mlflow_sysmetrics.preflight).parameters
    defaults = [parameters[name].default for name in ("max_retries", "timeout", "backoff")]
    assert defaults == [5, 30.0, (10, 20, 30)]


@about("a callback that logs only if")
def _body(row: Row, logged: Logged) -> None:
    with pytest.raises(errors.TrackingURIError), mlflow_sysmetrics.tracked_run(tracking_uri="nonsense"):
        pytest.fail("the body was entered")


@about("`gcloud auth")
def _tokens(row: Row, logged: Logged) -> None:
    found = entry_points(group="mlflow.request_auth_provider")
    assert found[row.ours[0].partition("=")[2]].load()


@about("`stage`, `tracking_uri`")
def _keys(row: Row, logged: Logged) -> None:
    schema = json.loads(text_of("docs/reference/mlflow_status.schema.json"))
    assert set(row.names) < set(schema["properties"])


@about("the stages `initializing`")
def _stages(row: Row, logged: Logged) -> None:
    schema = json.loads(text_of("docs/reference/mlflow_status.schema.json"))
    assert {*row.names, *row.ours} == set(schema["properties"]["stage"]["enum"])


@about("`mlflow_info.json`, only")
def _info(row: Row, logged: Logged) -> None:
    from mlflow_sysmetrics.preflight.status_files import files

    with (
        pytest.raises(errors.TrackingURIError),
        mlflow_sysmetrics.tracked_run(tracking_uri="nonsense", status_path="status"),
    ):
        pytest.fail("the body was entered")
    assert [path.name for path in Path("status").iterdir()] == ["mlflow_status.json"]
    assert files.read_status("status").stage == "failed"


@about("`gcloud run services update")
def _warm(row: Row, logged: Logged) -> None:
    page = text_of("docs/how_to/preflight.md")
    assert "\n## Keep the server warm\n" in page
    assert "--min-instances=1" in page


@about("the REST service of a model")
def _profile(row: Row, logged: Logged) -> None:
    assert "profiles: [serve]" in text_of("deploy/compose.yaml")


def checks(row: Row) -> list[Check]:
    return [check for beginning, check in ONE_BY_ONE.items() if row.there.startswith(beginning)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.there[:40])
def test_a_row_holds(row: Row, logged: Logged) -> None:
    own = checks(row)
    for check in own:
        check(row, logged)
    assert [rule for rule in RULES if rule(row, logged)] or own, "no rule and no check for this row"


def test_every_check_is_about_a_row() -> None:
    assert len(ROWS) > 100
    assert [one for one in ONE_BY_ONE if not any(row.there.startswith(one) for row in ROWS)] == []
