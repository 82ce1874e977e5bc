"""Which names of stages, aliases, tags, versions and models are accepted."""

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
def test_a_stage_is_accepted_in_any_case_and_has_its_alias(given: str | None, found: Target) -> None:
    assert checked_target(given, "auto", archive_existing=True) == found


@pytest.mark.parametrize("stage", ["prod", "", "Production ", 1, True])
def test_an_unknown_stage_is_rejected_with_the_list_of_stages(stage: object) -> None:
    with pytest.raises(ValueError, match="None, Staging, Production, Archived"):
        checked_target(stage, "auto", archive_existing=True)  # type: ignore[arg-type]


def test_a_given_alias_replaces_the_alias_of_the_stage() -> None:
    assert checked_target("Production", "champion", archive_existing=True).alias == "champion"


def test_an_alias_of_none_sets_none() -> None:
    assert checked_target("Production", None, archive_existing=True).alias is None


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "V12"])
def test_an_alias_that_mlflow_has_reserved_is_rejected(alias: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        checked_target(None, alias, archive_existing=True)


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "a.b", "x" * 256, 7])
def test_an_alias_that_cannot_be_in_a_uri_is_rejected(alias: object) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        checked_target(None, alias, archive_existing=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("alias", ["v", "v1x", "latest-2", "canary_7"])
def test_an_alias_similar_to_a_reserved_one_is_accepted(alias: str) -> None:
    assert checked_target(None, alias, archive_existing=True).alias == alias


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b", None, 3])
def test_a_model_name_that_cannot_be_in_a_uri_is_rejected(name: object) -> None:
    with pytest.raises(ValueError, match="model_name must be a non-empty string without"):
        checked_model_name(name)  # type: ignore[arg-type]


def test_a_unity_catalog_name_keeps_its_three_parts() -> None:
    assert checked_model_name("main.ml.ships") == "main.ml.ships"


@pytest.mark.parametrize("version", [0, -1, "x", "", True, 1.5, None])
def test_an_invalid_version_number_is_rejected(version: object) -> None:
    with pytest.raises(ValueError, match="version must be an integer >= 1"):
        checked_version(version)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [3, "3"])
def test_a_version_may_be_an_integer_or_a_string(version: str | int) -> None:
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
def test_an_invalid_tag_is_rejected(tags: object) -> None:
    with pytest.raises(ValueError, match="tags"):
        checked_tags(tags)  # type: ignore[arg-type]


def test_an_invalid_tag_is_named_with_its_argument() -> None:
    with pytest.raises(ValueError, match=r"registered_tags\['a'\] must be .*, got None"):
        checked_tags({"a": None}, "registered_tags")


def test_a_model_name_that_no_filter_can_quote_is_rejected() -> None:
    assert checked_model_name("it's") == "it's"
    with pytest.raises(ValueError, match="both kinds of quotes"):
        checked_model_name('it\'s "good"')
