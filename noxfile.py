"""The compatibility matrix (compat, tags_only), long tests (slow), and what needs an engine or Docker."""

from __future__ import annotations

import nox

nox.options.sessions = ["compat", "tags_only"]
nox.options.error_on_missing_interpreters = True

# Python, MLflow, and the upper bounds that this MLflow needs. SQLAlchemy 2.1 breaks MLflow 3.1 and older;
# MLflow 2.8 still imports pkg_resources.
MATRIX = [
    ("3.10", "mlflow==2.8.*", ("sqlalchemy<2.1", "setuptools<81")),
    ("3.11", "mlflow==2.22.*", ("sqlalchemy<2.1",)),
    ("3.12", "mlflow", ()),
    ("3.13", "mlflow", ()),
]


@nox.session
@nox.parametrize("python,mlflow,bounds", MATRIX, ids=[f"{python}, {mlflow}" for python, mlflow, _ in MATRIX])
def compat(session: nox.Session, mlflow: str, bounds: tuple[str, ...]) -> None:
    """Runs the integration suite on one pair of Python and MLflow."""
    session.install(".[test]", mlflow, *bounds)
    session.run("python", "-c", "import mlflow; print('MLflow', mlflow.__version__)")
    # MLflow 2.8 imports pkg_resources, whose warning would be an error in the middle of `import mlflow`.
    silenced = ("-W", "ignore:pkg_resources is deprecated:UserWarning")
    session.run("pytest", "-n", "2", "--dist", "worksteal", "-m", "integration", *silenced, *session.posargs)


@nox.session(python="3.10")
def tags_only(session: nox.Session) -> None:
    """Checks that an MLflow without system metrics gets the tags, and one warning."""
    session.install(".", "mlflow==2.7.*", "sqlalchemy<2.1", "setuptools<81")
    session.run("python", "tests/check_tags_only.py")


@nox.session
def slow(session: nox.Session) -> None:
    """Runs in full what CI runs in a reduced form: 200 kills, 1,000 forks, 10,000 runs, every damage."""
    session.install(".[test]")
    amounts = {"CHAOS_TRAINERS": "200", "CHAOS_FORKS": "1000", "CHAOS_RUNS": "10000", "CHAOS_FULL": "1"}
    session.run("pytest", "-m", "slow", *session.posargs, env=amounts)


@nox.session
def engines(session: nox.Session) -> None:
    """Samples the nodes of real torchrun, submitit, Ray and Spark jobs on this machine; needs a Java runtime.

    Not in CI, which has ten minutes and two cores: Ray starts seven processes a node, Spark is 450 MB with
    a JVM, and either may take minutes to start there. CI tests stand-ins of their interfaces.
    """
    session.install(".[test,ray,spark]", "ray[train,tune]", "submitit", "torch")
    session.run("pytest", "-m", "engines", "tests/engines", *session.posargs)


@nox.session
def containers(session: nox.Session) -> None:
    """Compares the sampler's readings in real containers with the kernel's accounting; needs Docker."""
    session.install(".[test]")
    session.run("pytest", "tests/containers/sampler", *session.posargs)


@nox.session
def docker(session: nox.Session) -> None:
    """Starts, kills, backs up, restores and upgrades the server of deploy/; needs Docker and Compose."""
    session.install(".[test]")
    session.run("pytest", "tests/containers/deployment", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation site without a warning, and checks its links and what its pages load."""
    session.install(".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", "site", *session.posargs)
    session.run("python", "scripts/check_site.py", "site")
