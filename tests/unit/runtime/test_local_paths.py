"""A directory that a program passes: ~ is its home, a URI is refused and never becomes a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_sysmetrics.runtime.local_paths import local_directory


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/job", "/home/someone/job"),
        ("~", "/home/someone"),
        (Path("~/job"), "/home/someone/job"),
        ("/data/job", "/data/job"),
        ("file:///data/a%20b", "/data/a b"),
        ("job:17", "job:17"),
        ("C:/job", "C:/job"),
        ("./~job", "~job"),
    ],
)
def test_a_directory_is_absolute(
    monkeypatch: pytest.MonkeyPatch, given: str | os.PathLike[str], expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert local_directory("save_dir", given) == Path(expected).absolute()


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/job",
        "gs://bucket/job",
        "abfss://container@account/job",
        "dbfs:/job",
        "runs:/1234/job",
        "hdfs://host:9000/job",
        "file://host/share",
        Path("s3://bucket/job"),
    ],
)
def test_a_uri_is_refused(uri: str | os.PathLike[str]) -> None:
    with pytest.raises(
        ValueError, match=r"save_dir must be a directory of this machine, got the URI .*Mount"
    ):
        local_directory("save_dir", uri)


@pytest.mark.parametrize("unknown", ["~no-such-user/job", "~no-such-user"])
def test_an_unknown_home_is_refused(unknown: str) -> None:
    with pytest.raises(ValueError, match="save_dir must be a directory whose home directory is known"):
        local_directory("save_dir", unknown)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_text_is_refused(empty: str) -> None:
    with pytest.raises(ValueError, match="save_dir must name a directory, got"):
        local_directory("save_dir", empty)


@pytest.mark.parametrize("wrong", [7, None, b"job", ["job"], True])
def test_what_is_no_path_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="save_dir must be a string or a path, got"):
        local_directory("save_dir", wrong)  # type: ignore[arg-type]
