"""Docker for the tests: the daemon that runs here, or one of their own where none runs.

Every object that a test makes has a name with a prefix and a label of this pytest run, by which it is removed at the
end, also after a failure; what a killed session has left is removed by the next one. Other people's containers,
networks, volumes and images are not touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LABEL = "mlflow-sysmetrics-test"
PROJECT = "com.docker.compose.project"  # the label that Compose gives what it makes
_BRIDGE = Path("/sys/class/net/docker0")
_START_SECONDS = 60
_STOP_SECONDS = 30


class CommandFailed(Exception):
    """A command of docker failed; the text is what it printed."""


@dataclass(frozen=True)
class Docker:
    """The client of one daemon.

    Attributes:
        environ: environment of the client.
        prefix: what the names of all objects of this pytest run begin with.
        private: True for a daemon that the tests have started: everything in it is theirs.
    """

    environ: Mapping[str, str]
    private: bool
    prefix: str = field(default_factory=lambda: f"sysmetrics-test-{os.getpid()}")

    @property
    def label(self) -> str:
        """The label of the objects of this pytest run."""
        return f"{LABEL}={os.getpid()}"

    def __call__(self, *arguments: str, timeout: float = 120, **options: object) -> str:
        """Runs a command of docker and returns what it printed on stdout, without the last line end.

        Raises:
            CommandFailed: it failed.
        """
        finished = self.run(*arguments, timeout=timeout, **options)
        if finished.returncode:
            shown = " ".join(arguments)
            raise CommandFailed(f"docker {shown}: {finished.returncode}\n{finished.stdout}{finished.stderr}")
        return finished.stdout.removesuffix("\n")

    def run(
        self, *arguments: str, timeout: float = 120, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of docker, whatever it returns."""
        command = ["docker", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=self.environ, **options
        )  # type: ignore[call-overload,no-any-return]

    def has_image(self, name: str) -> bool:
        """Returns whether the daemon has an image."""
        return self.run("image", "inspect", name).returncode == 0

    def remove_all(self, label: str) -> None:
        """Removes the objects with a label."""
        chosen = f"label={label}"
        for of, listing, removal in (
            ("container", ("ps", "--all", "--quiet"), ("rm", "--force", "--volumes")),
            ("network", ("network", "ls", "--quiet"), ("network", "rm")),
            ("volume", ("volume", "ls", "--quiet"), ("volume", "rm", "--force")),
            ("image", ("images", "--quiet"), ("rmi", "--force")),
        ):
            found = self(*listing, "--filter", chosen).split()
            if found:
                removed = self.run(*removal, *dict.fromkeys(found))
                if removed.returncode:
                    sys.stderr.write(f"{of} not removed: {removed.stderr}\n")

    def remove_leftovers(self) -> None:
        """Removes what sessions have left that were killed."""
        shown = f'{{{{.Label "{LABEL}"}}}} {{{{.Label "{PROJECT}"}}}}'
        labels = self("ps", "--all", "--format", shown).splitlines()
        for label in dict.fromkeys(labels):
            pid, _, project = label.partition(" ")
            match = re.match(r"sysmetrics-test-(\d+)", project)
            owner = pid or (match[1] if match else "")
            if owner and not Path(f"/proc/{owner}").exists():
                self.remove_all(f"{LABEL}={owner}")
                self.remove_all(f"{PROJECT}={project}")


@contextlib.contextmanager
def docker_here() -> Iterator[Docker]:
    """Yields a client of the daemon that runs here, or of one that is started and ended here.

    Ends the session with an error if there is neither: a check that did not run must not look like one that passed.
    """
    if sys.platform != "linux" or shutil.which("docker") is None:
        pytest.exit("these tests need Linux and the command docker", returncode=1)
    running = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Os}}"], capture_output=True, text=True, check=False
    )
    if running.returncode == 0:
        docker = Docker(os.environ, private=False)
        docker.remove_leftovers()
        try:
            yield docker
        finally:
            docker.remove_all(docker.label)
        return
    if os.getuid() != 0 or shutil.which("dockerd") is None:
        pytest.exit(
            f"no docker daemon answers ({running.stderr.strip()}); start one, or install dockerd and run this as"
            " root: then the tests start a daemon of their own",
            returncode=1,
        )
    with _own_daemon() as docker:
        yield docker


@contextlib.contextmanager
def _own_daemon() -> Iterator[Docker]:
    """Runs a daemon with a directory of its own, and removes both."""
    directory = Path(f"/var/tmp/sysmetrics-test-docker-{os.getpid()}")  # an overlay cannot lie on a tmpfs
    directory.mkdir(mode=0o700)
    socket = f"unix://{directory}/docker.sock"
    rules, bridged = _rules(), _BRIDGE.exists()
    log = directory / "log"
    command = [
        "dockerd",
        "--host",
        socket,
        "--data-root",
        f"{directory}/data",
        "--exec-root",
        f"{directory}/exec",
    ]
    command += ["--pidfile", f"{directory}/pid"]
    with log.open("w") as output:
        # In a session of its own: Ctrl-C reaches it when its containers are gone, not before.
        daemon = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    docker = Docker({**os.environ, "DOCKER_HOST": socket}, private=True)
    try:
        ends = time.monotonic() + _START_SECONDS
        while docker.run("version").returncode:
            if daemon.poll() is not None or time.monotonic() > ends:
                pytest.exit(f"dockerd does not start: {log.read_text()[-2000:]}", returncode=1)
            time.sleep(0.2)
        yield docker
    finally:
        _end(docker, daemon, directory)
        _forget(rules)
        if not bridged and _BRIDGE.exists():
            subprocess.run(["ip", "link", "delete", _BRIDGE.name], check=False)


def _rules() -> list[tuple[str, str]]:
    """Returns the rules of the packet filter, each with its table."""
    found: list[tuple[str, str]] = []
    for table in ("nat", "filter"):
        with contextlib.suppress(OSError):
            command = ["iptables", "--table", table, "--list-rules"]
            shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            found += [(table, line) for line in shown.splitlines()]
    return found


def _forget(before: list[tuple[str, str]]) -> None:
    """Removes the rules and chains of Docker that were not there before."""
    new = [(table, shlex.split(line)) for table, line in _rules() if (table, line) not in before]
    ours = [(table, words) for table, words in new if "docker" in " ".join(words).lower()]
    for made, undone in (("-A", "-D"), ("-N", "-X")):
        for table, words in ours:
            if words[0] == made:
                subprocess.run(
                    ["iptables", "--table", table, undone, *words[1:]], capture_output=True, check=False
                )


def _end(docker: Docker, daemon: subprocess.Popen[bytes], directory: Path) -> None:
    if daemon.poll() is None:
        with contextlib.suppress(CommandFailed):
            containers = docker("ps", "--all", "--quiet").split()
            if containers:
                docker.run("rm", "--force", "--volumes", *containers)
            docker.run("network", "prune", "--force")
        daemon.terminate()
        try:
            daemon.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    # What a container mounted is gone with it; the directory of a daemon that was killed may have mounts left.
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((one for one in mounts if one.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(directory)
