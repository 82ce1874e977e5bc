"""What all tests share: the two suites as markers, a clean environment, and `--bless`."""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Unit tests that take so long that `-m unit` leaves them out; the whole suite runs them.
LONG = ("heavy", "exhaustive")
LONG_MODULE = re.compile(rf"^pytestmark = pytest\.mark\.({'|'.join(LONG)})$", re.MULTILINE)

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4_000_000_000
GARBAGE_OBJECTS = 50_000
APART = (TESTS / "containers", TESTS / "engines")  # these need Docker, and Ray or Spark
# Thousands of folders without tests, which pytest would look through one by one.
RECORDED = frozenset(TESTS / name for name in ("elsewhere", "hosts", "tool_output", "transcripts"))
FOREIGN = ("MLFLOW_", "_MLFLOW_", "CUDA_", "NVIDIA_")

_UNIT = pytest.StashKey[Path]()
_EMPTY = pytest.StashKey[Path]()
_OWN = pytest.StashKey[Path]()
_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless",
        action="store_true",
        help="rewrite what a test compares with: tests/hosts/**/*.txt, tests/transcripts",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skips recorded machines, and what `-m unit` or `-m integration` would deselect as a whole: it takes seconds."""
    asked = config.option.markexpr
    if collection_path in RECORDED:
        return True
    if collection_path in APART:  # only with its own mark, or the folder itself
        return None if asked == collection_path.name else True
    other = {"unit": "integration", "integration": "unit"}.get(asked)
    if other is not None and collection_path == TESTS / other:
        return True
    if asked == "unit" and collection_path.match("test_*.py"):
        return True if LONG_MODULE.search(collection_path.read_text(encoding="utf-8")) else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test with the suite whose folder it lies in, except for long unit tests."""
    for item in items:
        suite = item.path.parts[len(TESTS.parts)]
        if suite != "unit" or not any(item.get_closest_marker(name) for name in LONG):
            item.add_marker(getattr(pytest.mark, suite))


def pytest_configure(config: pytest.Config) -> None:
    """Keeps temporary files in memory where there is room, and leaves the developer's shell behind.

    Unit tests write tens of thousands of small files, and databases wait for a disk at each commit. pytest's own
    directories stay where they are: integration tests look at the disk of their working directory.
    """
    if "TMPDIR" not in os.environ and _has_room(MEMORY):  # workers have that of the process that started them
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ["TMPDIR"] = tempfile.tempdir = str(_directory("tests-", MEMORY))
        os.chmod(tempfile.tempdir, 0o1777)  # where root runs the tests, PostgreSQL runs as another user
    config.stash[_UNIT] = directory = _directory("unit-")
    config.stash[_EMPTY] = directory / "empty"
    config.stash[_EMPTY].mkdir()
    # Hundreds of processes import this package and its tests; some containers have each of them compile it all.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _leave_shell()


def _directory(prefix: str, parent: Path | None = None) -> Path:
    """Returns a new directory, which is removed with whatever is left in it.

    That is at the end of the interpreter, when daemons of tests have written their last lines.
    """
    made, process = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)), os.getpid()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)
    return made


def _has_room(directory: Path) -> bool:
    """Returns whether gigabytes may be written here and programs started; some containers allow neither."""
    if sys.platform != "linux" or not os.access(directory, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize >= ROOM_BYTES and not found.f_flag & os.ST_NOEXEC


def _leave_shell() -> None:
    """Removes the variables that MLflow and NVIDIA's libraries read; MLflow itself sets some of them."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]


def pytest_collection() -> None:
    """Collects no garbage while modules and tests are made, which stay until the end."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Excludes the modules and the tests from every later garbage collection, and makes those rarer."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 10, 50)
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Gives each test a clean environment and a directory where relative paths and journals end up.

    This is a hook because a fixture costs more time than most unit tests take. Unit tests that do not ask for
    `tmp_path` share an empty directory, which is emptied after a test that wrote there. Each test has its own
    directory for journals, which threads of an earlier test may still write to.
    """
    _leave_shell()
    secrets = sys.modules.get("mlflow_sysmetrics.mlflow_api.secrets")
    if secrets is not None:  # a password that another test has sent must not be masked in this one
        secrets._sent.clear()
    shared = item.config.stash[_EMPTY]
    _enter(shared, shared.with_name(f"state-{next(_numbers)}"))
    failed = item.session.testsfailed
    done = yield
    os.chdir(shared)
    if _OWN in item.stash and item.session.testsfailed == failed:
        shutil.rmtree(item.stash[_OWN], ignore_errors=True)
    elif _OWN in item.stash and item.stash[_OWN].is_relative_to(item.config.stash[_UNIT]):
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        shutil.move(item.stash[_OWN], factory.getbasetemp())
    if os.listdir(shared):
        shutil.rmtree(shared)
        shared.mkdir()
        os.chdir(shared)
    return done


def _enter(directory: Path, state: Path) -> None:
    os.environ["XDG_STATE_HOME"] = str(state)  # where journals are: not the developer's
    os.chdir(directory)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the test's own, made and removed faster than pytest's; it stays if the test fails.

    That of a unit test is then moved to those of pytest. No path is used twice: MLflow keeps connections by the path
    of a database, and would read one that has been removed.
    """
    name = re.sub(r"\W", "_", request.node.name)[:30]
    is_unit = request.path.is_relative_to(TESTS / "unit")
    parent = request.config.stash[_UNIT] if is_unit else tmp_path_factory.getbasetemp()
    path = parent / f"{name}-{next(_numbers)}"
    path.mkdir(mode=0o700)
    _enter(path, path / "state")
    request.node.stash[_OWN] = path
    return path
