"""Every code block of the documents runs: here, in the test that is named below, or nowhere for a stated reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import closing
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import forks
import pytest
from programs import MLFLOW, PATIENT, QUIET, Databases, Store

from mlflow_sysmetrics.settings import SPOOL_DIR

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
DEFAULT_IS_SQLITE = (3, 7)  # before, MLflow's default store was ./mlruns
NO_PROGRAMS = {"mermaid", "text"}  # a diagram, and what a program prints


class Block(NamedTuple):
    """A code block of a document."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    return [
        Block(name, text[: one.start()].count("\n") + 1, one[2], textwrap.dedent(one[3]))
        for one in FENCE.finditer(text)
    ]


BLOCKS = [one for page in PAGES for one in blocks_of(page) if one.language not in NO_PROGRAMS]

# What a document takes for granted because it is the reader's: a model, loaders, a training.
GIVEN_MODEL = """
import torch
model = torch.nn.Linear(4, 2)
data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,)))
train_loader = val_loader = torch.utils.data.DataLoader(data, batch_size=8)
optimizer, criterion, device = torch.optim.SGD(model.parameters(), 0.1), torch.nn.CrossEntropyLoss(), "cpu"
"""
GIVEN = {
    "docs/how_to/hpo.md": "build = dict\ntrain = lambda model: {'val_f1_macro': 1 / (1 + model['layers'])}\n",
    "docs/how_to/preflight.md": "import mlflow\ntrain = lambda: mlflow.log_metric('loss', 0.5)\n",
    "docs/how_to/registry.md": GIVEN_MODEL
    + "batch = torch.ones(8, 4)\nrows = batch.numpy()\ntrain = lambda model: None\n",
    "docs/how_to/trainer.md": GIVEN_MODEL,
}
NEEDED = {
    "docs/how_to/hpo.md": "optuna",
    "docs/how_to/registry.md": "torch",
    "docs/how_to/trainer.md": "ignite",
}
# MLflow finds out requirements by loading the model in another process, which takes ten seconds and more.
SHORTER = {
    "docs/tutorial/first_run.md": ("MINUTES = 6", "MINUTES = 0.01"),
    "docs/how_to/hpo.md": ("n_trials=50", "n_trials=4"),
    "docs/how_to/registry.md": ("tags={", 'pip_requirements=["torch"], tags={'),
}
PYTHON_PAGES = {
    "README.md",
    "docs/index.md",
    "docs/about/mlflow-plugin-page.md",
    "docs/how_to/exports.md",
    "docs/tutorial/first_run.md",
    "docs/how_to/around_a_training.md",
    "docs/how_to/attach.md",
    "docs/how_to/before_a_training.md",
    "docs/how_to/notebooks.md",
    "docs/how_to/switch_off.md",
    "docs/how_to/tracking_server.md",
    "docs/how_to/training.md",
    *GIVEN,
}

# Blocks that run in a test of their own: page, beginning of the block, that test.
PREFLIGHT, SERVER, TRAINING = (
    f"tests/integration/{name}/test_" for name in ("preflight", "server", "training")
)
ELSEWHERE = [
    ("README.md", 'echo "Installing', "tests/integration/test_debug_run.py"),
    ("deploy/README.md", "docker compose exec mlflow mlflow gc", f"{SERVER}deploy_readme.py"),
    ("deploy/README.md", "from mlflow.server", f"{SERVER}deploy_readme.py"),
    ("deploy/README.md", "from mlflow_sysmetrics", f"{SERVER}deploy_readme.py"),
    ("docs/how_to/adapters.md", "import", f"{TRAINING}adapter_examples.py"),
    ("docs/how_to/training.md", "python -m mlflow_sysmetrics.examples", f"{TRAINING}migrating.py"),
    ("examples/cluster/README.md", "export MASTER", "tests/integration/cluster/test_cluster_examples.py"),
    (
        "examples/cluster/README.md",
        "python train_dask.py",
        "tests/integration/cluster/test_cluster_examples.py",
    ),
    ("examples/cluster/README.md", "python train_ray.py", "tests/engines/test_ray.py"),
    ("examples/hpo/README.md", "python search.py", f"{TRAINING}hpo_example.py"),
    ("examples/model_lifecycle/README.md", "", f"{TRAINING}registry_lifecycle_example.py"),
    ("examples/registry/README.md", "python ships.py", f"{TRAINING}registry_example.py"),
    ("examples/submitted_job/README.md", "python submit.py", f"{PREFLIGHT}example_submitted_job.py"),
    ("examples/training/README.md", "export", f"{TRAINING}trainer_example.py"),
]

# Blocks that the suite does not run: page, beginning of the block, why.
NOT_RUN = [
    (
        "README.md",
        "python3 -m venv --clear .venv-test",
        "is this suite; .ci/run takes the command from README",
    ),
    ("README.md", "pip install .", "would replace the installation under test; .ci/run installs the package"),
    ("docs/tutorial/first_run.md", "python3 -m venv", "installs; .ci/run installs the package"),
    ("docs/tutorial/first_run.md", "python train.py", "the program above it, for six minutes"),
    ("docs/tutorial/first_run.md", "mlflow ui", "serves until it is stopped"),
    ("docs/tutorial/first_run.md", "mlflow-sysmetrics report", "needs a run of six minutes; test_report.py"),
    ("docs/how_to/install.md", "pip install", "would replace the installation under test"),
    ("docs/how_to/containers.md", "COPY", "needs Docker; nox -s containers builds such an image"),
    ("docs/how_to/containers.md", "ENV", "needs Docker"),
    ("docs/how_to/slurm.md", "#!/bin/bash", "needs SLURM"),
    ("docs/how_to/ray.md", "import mlflow", "needs a cluster: nox -s engines runs the same"),
    ("docs/how_to/multi_gpu.md", "export CUDA", "needs eight GPUs"),
    ("docs/how_to/lightning.md", "", "half of a program; test_adapter_examples.py runs a whole one"),
    ("docs/how_to/hugging_face.md", "", "half of a program; test_adapter_examples.py runs a whole one"),
    ("docs/how_to/ci.md", "mlflow-sysmetrics check", "needs a server; test_check_command.py runs it"),
    ("docs/how_to/cloud_run.md", "export", "needs a server on Cloud Run"),
    ("docs/how_to/cloud_run.md", "mlflow-sysmetrics check", "needs a server on Cloud Run"),
    ("CONTRIBUTING.md", "src/mlflow_sysmetrics/", "a list of directories, which test_documents.py checks"),
    ("CONTRIBUTING.md", "cli ", "a table of floors, which test_layers.py checks"),
    (
        "CONTRIBUTING.md",
        '.venv/bin/pip install -e ".[docs]"',
        "installs; .ci/run and nox -s docs build the site",
    ),
    ("CONTRIBUTING.md", "python3 -m venv", "is this suite, and its long sessions"),
    ("deploy/README.md", "cp .env.example", "needs Docker: nox -s docker"),
    ("deploy/README.md", "postgresql+psycopg2://optuna", "an address, which nox -s docker connects to"),
    ("deploy/README.md", "curl http://localhost:5002", "needs Docker: nox -s docker"),
    (
        "deploy/README.md",
        "MLFLOW_BACKEND_STORE_URI",
        "needs a host named db; test_server_commands.py runs doctor",
    ),
    ("deploy/README.md", "docker compose exec -T", "needs Docker: nox -s docker"),
    ("deploy/README.md", "docker compose stop", "needs Docker: nox -s docker"),
    ("deploy/README.md", "docker compose up", "needs Docker: nox -s docker"),
    ("deploy/README.md", 'pip install ".[server]"', "installs; test_server_run_command.py runs the commands"),
    ("benchmarks/README.md", "", "takes minutes to hours, and an idle machine"),
    ("docs/how_to/watch.md", "mlflow-sysmetrics watch", "needs runs; test_watch_runs.py runs the command"),
    ("docs/how_to/exports.md", "pip install", "installs; test_exports.py runs such programs"),
    (
        "docs/how_to/cluster.md",
        "import mlflow\nimport torch",
        "needs ranks; test_cluster_examples.py runs the same",
    ),
    ("docs/how_to/cluster.md", "import mlflow\nimport ray", "needs a cluster: nox -s engines runs the same"),
    (
        "docs/how_to/cluster.md",
        "import mlflow\nfrom distributed",
        "needs a cluster; test_dask.py runs the same",
    ),
    (
        "docs/how_to/cluster.md",
        "import mlflow\nfrom mlflow_sysmetrics",
        "needs a JVM: nox -s engines runs the same",
    ),
    (
        "docs/how_to/cluster.md",
        "mlflow-sysmetrics node-agent",
        "needs a run; test_node_agent_process.py runs it",
    ),
    ("docs/how_to/report.md", "mlflow-sysmetrics report", "needs runs; test_report.py runs the command"),
    ("docs/reference/doctor.md", "mlflow-sysmetrics check [", "a synopsis, which test_check.py follows"),
    ("docs/how_to/preflight.md", "gcloud run services", "needs a service on Cloud Run"),
    ("docs/explanation/reliability.md", "Journals in ", "what a command prints"),
    (
        "docs/reference/command_line.md",
        "mlflow-sysmetrics check",
        "needs a server; test_check_command.py runs it",
    ),
    (
        "docs/reference/command_line.md",
        "mlflow-sysmetrics sync\nrm -r",
        "removes all journals; test_cli.py runs the commands",
    ),
]

# Blocks for a shell that run here, in Bash.
SHELL = [
    ("docs/tutorial/first_run.md", "mlflow-sysmetrics doctor"),
    ("docs/tutorial/first_run.md", "mlflow-sysmetrics status"),
    ("docs/how_to/ci.md", "export MLFLOW_RUN_CONTEXT_PROVIDER"),
    ("docs/how_to/ci.md", "export MLFLOW_SYSMETRICS_FLUSH"),
    ("docs/how_to/containers.md", "mlflow-sysmetrics sync --any-host"),
    ("docs/how_to/databricks.md", "export MLFLOW_TRACKING_URI"),
    ("docs/how_to/install.md", "mlflow-sysmetrics doctor"),
    ("docs/how_to/outages.md", "mlflow-sysmetrics sync"),
    ("docs/how_to/slurm.md", "mlflow-sysmetrics sync --any-host"),
    ("docs/how_to/preflight.md", "mlflow-sysmetrics check"),
    ("docs/explanation/reliability.md", "mlflow-sysmetrics sync --any-host"),
    ("docs/reference/command_line.md", "mlflow-sysmetrics status --print-dir"),
]

# Programs that the checks of docs/reference/metrics.md name and that no test runs, and why.
NO_CHECKS = {
    "dcgmi": "needs a data-centre GPU",
    "sudo": "needs root",
    "ioreg": "a program of macOS",
    "iostat": "runs until it is stopped",
    "nvidia-smi": "needs an NVIDIA GPU",
    "perfquery": "needs InfiniBand",
    "pidstat": "runs until it is stopped",
    "sensors": "needs a GPU's driver",
    "top": "runs until it is stopped",
    "turbostat": "needs root",
}


def is_one_of(block: Block, table: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Returns the rows of a table, which begin with page and beginning, that are about a block."""
    return [row for row in table if block.page == row[0] and block.text.startswith(row[1])]


def homes(block: Block) -> list[object]:
    """Returns what runs a block, or why nothing does."""
    found: list[object] = [*is_one_of(block, ELSEWHERE), *is_one_of(block, NOT_RUN)]
    return found + [case for case, those in HERE.items() if block in those]


HERE = {
    "python": [one for one in BLOCKS if one.language == "python" and one.page in PYTHON_PAGES],
    "shell": [one for one in BLOCKS if is_one_of(one, SHELL)],
    "yaml": [one for one in BLOCKS if one.language == "yaml"],
    "sql": [one for one in BLOCKS if one.language == "sql"],
    "checks": [one for one in BLOCKS if one.page == "docs/reference/metrics.md"],
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_runs_in_one_place_or_has_a_reason_not_to(block: Block) -> None:
    assert len(homes(block)) == 1, homes(block)


@pytest.mark.parametrize("row", [*ELSEWHERE, *NOT_RUN, *SHELL], ids=lambda row: f"{row[0]}: {row[1][:20]}")
def test_every_row_of_the_tables_is_about_a_block(row: tuple[str, ...]) -> None:
    assert any(is_one_of(block, [row]) for block in BLOCKS)


@pytest.mark.parametrize("row", ELSEWHERE, ids=lambda row: f"{row[0]}: {row[1][:20]}")
def test_a_test_that_is_named_runs_files_of_the_block_or_reads_the_page(row: tuple[str, str, str]) -> None:
    page, text = Path(row[0]), (ROOT / row[2]).read_text(encoding="utf-8")
    [block, *_] = [one for one in BLOCKS if is_one_of(one, [row])]
    own = [page.name, page.parent.name, *re.findall(r"\w+\.py|mlflow_sysmetrics\.\w+", block.text)]
    assert any(name in text for name in own if name)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("block", HERE["python"], ids=str)
def test_a_python_block_runs_as_it_stands(block: Block, store: Store, tmp_path: Path) -> None:
    """As on a fresh machine: no tracking URI is set, and runs go where MLflow puts them."""
    if block.page in NEEDED:
        pytest.importorskip(NEEDED[block.page])
    environ = {**os.environ, **QUIET, **PATIENT}
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "runs.db")  # MLflow's default, with its tables
    if (
        MLFLOW < DEFAULT_IS_SQLITE or block.page == "docs/how_to/preflight.md"
    ):  # a preflight needs a server's address
        environ["MLFLOW_TRACKING_URI"] = store.uri
    done = forks.run(
        ["-c", GIVEN.get(block.page, "") + block.text.replace(*SHORTER.get(block.page, ("", "")))],
        env=environ,
        cwd=tmp_path,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    if "LocalServer" in block.text:  # its runs are on a server that has stopped
        return
    experiments = [one.experiment_id for one in store.client.search_experiments()]
    runs = store.client.search_runs(experiments)
    assert runs
    assert all(any(key.startswith("system/") for key in run.data.metrics) for run in runs)
    assert all("sys.cpu" in run.data.tags for run in runs if "mlflow.source.name" in run.data.tags)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("block", HERE["shell"], ids=str)
def test_a_shell_block_runs_as_it_stands(block: Block, store: Store, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "train.py").write_text("print('trained')")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, **QUIET, "PATH": path, "MLFLOW_TRACKING_URI": store.uri}
    done = bash(block.text, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    assert ("trained" in done.stdout) == ("train.py" in block.text)


@pytest.mark.parametrize("block", HERE["yaml"], ids=str)
def test_a_yaml_block_fits_the_server_and_its_compose_file(block: Block) -> None:
    yaml = pytest.importorskip("yaml")
    given = yaml.safe_load(block.text)
    if given.get("kind") == "Job":
        [container] = given["spec"]["template"]["spec"]["containers"]
        assert {one["name"] for one in container["env"]} <= {"MLFLOW_TRACKING_URI", SPOOL_DIR}
        assert "sync --any-host" in container["command"][-1]
        return
    if "services" not in given:  # probes of a pod
        server = find_spec("mlflow.server")
        assert server is not None
        assert {one["httpGet"]["path"] for one in given.values()} == {"/health"}
        assert '"/health"' in Path(str(server.origin)).read_text(encoding="utf-8")
        return
    ours = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in given["services"].items():
        others = service.get("networks", [])  # a service of the reader, on our network
        assert name in ours["services"] or [f"${{COMPOSE_PROJECT_NAME:-{one}}}" for one in others] == [
            ours["networks"]["default"]["name"]
        ]


@pytest.mark.parametrize("block", HERE["sql"], ids=str)
def test_sql_runs_on_the_tables_of_mlflow(block: Block, tmp_path: Path, databases: Databases) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    uri = databases("postgresql").new(tmp_path).uri
    with closing(psycopg2.connect(uri.replace("+psycopg2", ""))) as connection:
        connection.cursor().execute(block.text)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language in {"sh", "bash"}], ids=str)
def test_a_block_for_a_shell_is_one(block: Block) -> None:
    assert bash(block.text.replace("<pid>", "1"), "-n").stderr == ""


OUTSIDE_QUOTES = r'; (?=(?:[^"]*"[^"]*")*[^"]*$)'
CHECKS = sorted({check for block in HERE["checks"] for check in re.split(OUTSIDE_QUOTES, block.text.strip())})


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_of_a_metric_runs_where_its_source_is(check: str) -> None:
    programs = [part.split()[0] for part in re.split(r" \| (?!\d)", check)]
    if programs[0] in NO_CHECKS or "torch.cuda" in check:  # the latter needs a GPU
        return
    own = check.replace("<pid>", str(os.getpid())).replace("python -c", f"{sys.executable} -W ignore -c")
    files = [word for word in own.split() if word.startswith("/") and word != sys.executable]
    files = [name for word in files for name in bash(f"echo {word}").stdout.split()]
    if all(map(shutil.which, {*programs} - {"python"})) and all(map(glob, files)):
        done = bash(own)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_every_program_that_no_test_runs_is_in_a_check() -> None:
    assert set(NO_CHECKS) <= {check.split()[0] for check in CHECKS}


def bash(text: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", *options, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, **more)
