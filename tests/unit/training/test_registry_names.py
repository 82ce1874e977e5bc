"""What a stage, an alias, a tag and a model may be called."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.training.registry.names import (
    Target,
    checked_model_name,
    checked_tags,
    checked_target,
    checked_version,
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Production", Target("Production", "production", archive_existing=True)),
        ("PRODUCTION", Target("Production", "production", archive_existing=True)),
        ("staging", Target("Staging", "staging", archive_existing=True)),
        ("archived", Target("Archived", None, archive_existing=True)),
        ("none", Target("None", None, archive_existing=True)),
        (None, Target(None, None, archive_existing=True)),
    ],
)
def test_a_stage_is_known_in_any_case_and_brings_its_alias(given: str | None, found: Target) -> None:
    assert checked_target(given, "auto", archive_existing=True) == found


@pytest.mark.parametrize("stage", ["prod", "", "Production ", 1, True])
def test_an_unknown_stage_is_refused_with_the_list_of_stages(stage: object) -> None:
    with pytest.raises(ValueError, match="None, Staging, Production, Archived"):
        checked_target(stage, "auto", archive_existing=True)  # type: ignore[arg-type]


def test_an_alias_of_the_callers_own_takes_the_place_of_the_stages() -> None:
    assert checked_target("Production", "champion", archive_existing=True).alias == "champion"


def test_no_alias_is_no_alias() -> None:
    assert checked_target("Production", None, archive_existing=True).alias is None


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "V12"])
def test_an_alias_that_mlflow_reads_itself_is_refused(alias: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        checked_target(None, alias, archive_existing=True)


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "a.b", "x" * 256, 7])
def test_an_alias_that_no_uri_can_hold_is_refused(alias: object) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        checked_target(None, alias, archive_existing=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("alias", ["v", "v1x", "latest-2", "canary_7"])
def test_an_alias_that_only_resembles_a_reserved_one_is_taken(alias: str) -> None:
    assert checked_target(None, alias, archive_existing=True).alias == alias


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b", None, 3])
def test_a_model_that_no_uri_can_name_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="cannot be called"):
        checked_model_name(name)  # type: ignore[arg-type]


def test_a_model_of_a_catalogue_keeps_its_three_parts() -> None:
    assert checked_model_name("main.ml.ships") == "main.ml.ships"


@pytest.mark.parametrize("version", [0, -1, "x", "", True, 1.5, None])
def test_what_is_no_version_number_is_refused(version: object) -> None:
    with pytest.raises(ValueError, match="is no version"):
        checked_version(version)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [3, "3"])
def test_a_version_may_be_a_number_or_its_text(version: str | int) -> None:
    assert checked_version(version) == "3"


def test_numbers_and_booleans_become_tags() -> None:
    assert checked_tags({"f1": 0.5, "n": 3, "best": True, "task": "ships"}) == {
        "f1": "0.5",
        "n": "3",
        "best": "True",
        "task": "ships",
    }


@pytest.mark.parametrize(
    "tags",
    [{"a": None}, {"a": ["b"]}, {1: "a"}, {"": "a"}, {"k" * 251: "a"}, {"a": "x" * 200_000}, "a=b", ["a"]],
)
def test_what_cannot_be_a_tag_is_refused(tags: object) -> None:
    with pytest.raises(ValueError, match="tags"):
        checked_tags(tags)  # type: ignore[arg-type]


def test_a_refused_tag_is_named_with_its_argument() -> None:
    with pytest.raises(ValueError, match=r"registered_tags\['a'\] is None"):
        checked_tags({"a": None}, "registered_tags")


def test_a_name_that_no_filter_of_mlflow_could_hold_is_refused() -> None:
    assert checked_model_name("it's") == "it's"
    with pytest.raises(ValueError, match="both kinds of quotes"):
        checked_model_name('it\'s "good"')
