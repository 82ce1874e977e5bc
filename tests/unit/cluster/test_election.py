"""The election of one process per node."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlflow_sysmetrics.cluster import election as module
from mlflow_sysmetrics.cluster.election import Election, NodeRecord, base_directory, this_member
from mlflow_sysmetrics.errors import Unavailable

KEY = "k"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    return base_directory()


def test_one_leads_and_the_next_one_follows_when_it_leaves(base: Path) -> None:
    first, second = Election(base, KEY), Election(base, KEY)
    assert (first.lead(), second.lead(), first.lead()) == (True, False, True)
    first.leave()
    assert second.lead()
    second.leave()


def test_runs_have_elections_of_their_own(base: Path) -> None:
    one, other = Election(base, "one"), Election(base, "other")
    assert one.lead()
    assert other.lead()
    one.leave()
    other.leave()


def test_the_successor_continues_under_the_same_name(base: Path) -> None:
    first, second = Election(base, KEY), Election(base, KEY)
    assert first.lead()
    assert first.record() is None
    first.agree(NodeRecord(name="node_3", started_at=17))
    first.leave()
    assert second.lead()
    assert second.record() == NodeRecord(name="node_3", started_at=17)
    second.leave()


def test_members_are_those_that_live(base: Path) -> None:
    first, second = Election(base, KEY), Election(base, KEY)
    first.join(this_member(node_rank=1, pids=(os.getpid(),), gpus=("GPU-a",)))
    second.join(this_member(node_rank=0, owns="job"))
    dead = {"process": {**this_member().process, "began": 1.0}}
    path = first.directory / "1-x.member"
    path.write_text(json.dumps(dead))
    found = {(member.node_rank, member.gpus, member.owns) for member in first.members()}
    assert found == {(1, ("GPU-a",), None), (0, None, "job")}
    assert not path.exists()
    second.leave()
    assert len(first.members()) == 1
    first.leave()


def test_a_change_is_seen_once(base: Path) -> None:
    first, second = Election(base, KEY), Election(base, KEY)
    first.has_changed()
    assert not first.has_changed()
    second.join(this_member())
    assert first.has_changed()
    assert not first.has_changed()
    second.leave()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": 1}', "\0" * 10])
def test_garbage_in_a_file_is_not_a_member(base: Path, text: str) -> None:
    election = Election(base, KEY)
    (election.directory / "2-x.member").write_text(text)
    (election.directory / "node.json").write_text(text)
    assert election.members() == []
    assert election.record() in {None, NodeRecord()}


def test_links_are_not_followed(base: Path, tmp_path: Path) -> None:
    election = Election(base, KEY)
    target = tmp_path / "precious"
    target.write_text(json.dumps({"name": "planted"}))
    (election.directory / "node.json").symlink_to(target)
    (election.directory / "node.lock").symlink_to(target)
    assert election.record() is None
    with pytest.raises(Unavailable, match="not a regular file"):
        election.lead()
    assert json.loads(target.read_text()) == {"name": "planted"}


@pytest.mark.parametrize("kind", ["link", "file", "open to others"])
def test_a_directory_that_is_not_ours_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    path = tmp_path / f"mlflow-sysmetrics-{os.geteuid()}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(Unavailable, match=r"not a directory|others can write"):
        base_directory()
