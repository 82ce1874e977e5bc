"""Factors of the user, and what follows from them."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.summary.amounts import amount, carbon, duration, moment, number

FIGURES = {"gpu_hours": 10.0, "energy_watt_hours": 5000.0}


def test_without_factors_there_is_no_carbon_and_no_cost() -> None:
    costs = Costs.from_environ({})
    assert costs == Costs()
    assert costs.kwh(FIGURES) == 5
    assert (costs.carbon_grams(FIGURES), costs.price(FIGURES)) == (None, None)


def test_factors_are_read_from_the_environment() -> None:
    costs = Costs.from_environ(
        {
            "MLFLOW_SYSMETRICS_PUE": "1.5",
            "MLFLOW_SYSMETRICS_CARBON_G_PER_KWH": "400",
            "MLFLOW_SYSMETRICS_PRICE_PER_KWH": " 0.2 ",
            "MLFLOW_SYSMETRICS_PRICE_PER_GPU_HOUR": "2",
        }
    )
    assert costs.kwh(FIGURES) == 7.5
    assert costs.carbon_grams(FIGURES) == 3000
    assert costs.price(FIGURES) == pytest.approx(21.5)


def test_what_was_not_measured_costs_nothing_that_is_known() -> None:
    costs = Costs(carbon=400, price_per_kwh=1, price_per_gpu_hour=2)
    assert (costs.kwh({}), costs.carbon_grams({}), costs.price({})) == (None, None, None)
    assert costs.price({"gpu_hours": 3}) == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUE", "0.9"),
        ("PUE", "much"),
        ("PUE", "nan"),
        ("PUE", "inf"),
        ("CARBON_G_PER_KWH", "-1"),
        ("PRICE_PER_KWH", "0,2"),
        ("PRICE_PER_GPU_HOUR", "-2"),
    ],
)
def test_a_bad_factor_is_reported_and_counts_as_none(name: str, value: str) -> None:
    reported = []
    costs = Costs.from_environ({f"MLFLOW_SYSMETRICS_{name}": value}, lambda *what: reported.append(what))
    assert costs == Costs()
    ((variable, given, message),) = reported
    assert (variable, given) == (f"MLFLOW_SYSMETRICS_{name}", value)
    assert "must be a number >=" in message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0"),
        (0.004, "0.004"),
        (0.256, "0.26"),
        (3.14, "3.1"),
        (3.999, "4"),
        (45.6, "46"),
        (12345.6, "12,346"),
    ],
)
def test_numbers_have_the_digits_that_they_deserve(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("memory_max_percentage", 97.64, "98 %"),
        ("gpu_hours", 12.3, "12 h"),
        ("measured_hours", 2.5, "2 h 30 min"),
        ("energy_watt_hours", 900, "900 Wh"),
        ("energy_watt_hours", 1900, "1.9 kWh"),
        ("process_memory_max_megabytes", 52_000, "52 GB"),
        ("gpu_power_mean_watts", 410.2, "410 W"),
        ("gpu_power_mean_watts", None, "-"),
    ],
)
def test_a_figure_has_the_unit_of_its_name(name: str, value: float | None, shown: str) -> None:
    assert amount(name, value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (2698, "45 min"),
        (3599, "60 min"),
        (7500, "2 h 5 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_length_of_time_is_rounded(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_carbon_has_its_unit() -> None:
    assert (carbon(900), carbon(3500)) == ("900 g CO2e", "3.5 kg CO2e")


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(0, "1970-01-01 00:00 UTC"), (10**18, "an unknown time")]
)
def test_a_moment_is_in_utc(milliseconds: int, shown: str) -> None:
    assert moment(milliseconds) == shown
