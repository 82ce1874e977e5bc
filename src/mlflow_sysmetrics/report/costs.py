"""Energy, carbon and cost of runs, by factors that the user gives: none is guessed.

Source:  MLFLOW_SYSMETRICS_PUE, _CARBON_G_PER_KWH, _PRICE_PER_KWH and _PRICE_PER_GPU_HOUR.
Units:   a factor, grams of CO2 equivalent, and any currency.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlflow_sysmetrics.settings import warn_once

PUE = "MLFLOW_SYSMETRICS_PUE"
CARBON = "MLFLOW_SYSMETRICS_CARBON_G_PER_KWH"
PRICE_PER_KWH = "MLFLOW_SYSMETRICS_PRICE_PER_KWH"
PRICE_PER_GPU_HOUR = "MLFLOW_SYSMETRICS_PRICE_PER_GPU_HOUR"
_WATT_HOURS_PER_KWH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Factors; None if the user gave none.

    Attributes:
        pue: energy of the whole data centre per energy of its machines, at least 1.
        carbon: grams of CO2 equivalent per kWh.
        price_per_kwh: in any currency.
        price_per_gpu_hour: in the same one.
    """

    pue: float | None = None
    carbon: float | None = None
    price_per_kwh: float | None = None
    price_per_gpu_hour: float | None = None

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str] | None = None,
        report: Callable[[str, str, str], None] = warn_once,
    ) -> Costs:
        """Reads the environment; a bad value is reported and counts as none.

        Args:
            environ: variables to read, `os.environ` by default.
            report: called with a bad variable, its value and what is wrong.
        """
        found = os.environ if environ is None else environ

        def factor(variable: str, least: float) -> float | None:
            text = found.get(variable, "").strip()
            try:
                value = float(text) if text else None
            except ValueError:
                value = math.nan
            if value is None or least <= value < math.inf:
                return value
            report(variable, text, f"is ignored: it must be a number >= {least:g}")
            return None

        return cls(
            pue=factor(PUE, 1),
            carbon=factor(CARBON, 0),
            price_per_kwh=factor(PRICE_PER_KWH, 0),
            price_per_gpu_hour=factor(PRICE_PER_GPU_HOUR, 0),
        )

    def kwh(self, figures: Mapping[str, float]) -> float | None:
        """Returns the measured energy of a run in kWh, times the PUE; None if none was measured."""
        watt_hours = figures.get("energy_watt_hours")
        return None if watt_hours is None else watt_hours / _WATT_HOURS_PER_KWH * (self.pue or 1)

    def carbon_grams(self, figures: Mapping[str, float]) -> float | None:
        """Returns the grams of CO2 equivalent of the measured energy."""
        kwh = self.kwh(figures)
        return None if kwh is None or self.carbon is None else kwh * self.carbon

    def price(self, figures: Mapping[str, float]) -> float | None:
        """Returns what GPU-hours and measured energy cost; None without a price for what was measured."""
        kwh, hours = self.kwh(figures), figures.get("gpu_hours")
        parts = (
            (kwh, self.price_per_kwh),
            (hours, self.price_per_gpu_hour),
        )
        known = [amount * price for amount, price in parts if amount is not None and price is not None]
        return sum(known) if known else None
