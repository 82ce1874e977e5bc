"""One run with its history: what it ran on, what it did and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.histories import RunSummary, summarise
from mlflow_sysmetrics.report.measured_runs import EPOCHS, MeasuredRun, Point, Server, read_history
from mlflow_sysmetrics.summary.amounts import LABELS, amount, carbon, number
from mlflow_sysmetrics.summary.rules import Verdict
from mlflow_sysmetrics.summary.summary import FIGURES

_MACHINE = (
    ("Host", "sys.hostname"),
    ("CPU", "sys.cpu"),
    ("Cores", "sys.cpu_cores_effective"),
    ("Cores of the machine", "sys.cpu_cores"),
    ("Memory", "sys.memory_gb"),
    ("Memory limit", "sys.memory_limit_gb"),
    ("GPU", "sys.gpu"),
    ("GPUs", "sys.gpu_count"),
    ("GPU memory", "sys.gpu_memory_gb"),
    ("GPU driver", "sys.gpu_driver"),
    ("System", "sys.os"),
    ("Python", "sys.python"),
    ("Container", "sys.container"),
    ("Scheduler", "sys.scheduler"),
    ("Job", "sys.job_id"),
    ("Cloud", "sys.cloud"),
)
_GIGABYTES = "_gb"
_NOTHING = frozenset({"", "None", "0"})  # what the tags of a machine without GPUs say


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run.

    Attributes:
        run: the run.
        histories: points of each of its system metrics, by key.
        summary: what they amount to.
        epochs: ends of epochs in milliseconds since 1970, where the training kit has recorded them.
        costs: factors of the user.
    """

    run: MeasuredRun
    histories: Mapping[str, Sequence[Point]]
    summary: RunSummary
    costs: Costs
    epochs: Sequence[int] = ()

    @property
    def machine(self) -> list[tuple[str, str]]:
        """What it ran on, as its tags say."""
        found = []
        for label, tag in _MACHINE:
            value = self.run.tags.get(tag, "")
            if value not in _NOTHING:
                found.append(
                    (label, f"{value} GB" if tag.endswith(_GIGABYTES) and value.isascii() else value)
                )
        return found

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the rules find."""
        return self.summary.verdicts

    @property
    def unmeasured_energy(self) -> tuple[str, ...]:
        """What used energy that its machine does not report."""
        return tuple(
            f"{part} of node {node.whole.node}" if node.whole.node else part
            for node in self.summary.nodes
            for part in node.whole.unmeasured_energy
        )

    @property
    def labelled_figures(self) -> list[tuple[str, str]]:
        """Its figures, for people."""
        return [(LABELS[name], amount(name, value)) for name, value in self.summary.figures.items()]

    @property
    def labelled_costs(self) -> list[tuple[str, str]]:
        """Carbon and cost as far as the user gave factors, and what is not part of the energy."""
        figures, costs = self.summary.figures, self.costs
        found = []
        if (kwh := costs.kwh(figures)) is not None and costs.pue is not None:
            found.append((f"Energy x PUE {costs.pue:g}", f"{number(kwh)} kWh"))
        if (grams := costs.carbon_grams(figures)) is not None:
            found.append(("Carbon", f"{carbon(grams)} at {costs.carbon:g} g per kWh"))
        if (price := costs.price(figures)) is not None:
            found.append(("Cost", f"{number(price)} in the currency of your prices"))
        if self.unmeasured_energy:
            found.append(("Energy not measured", ", ".join(self.unmeasured_energy)))
        return found

    def document(self) -> dict[str, Any]:
        """Returns it for JSON, without its points."""
        figures = self.summary.figures
        return {
            "run_id": self.run.run_id,
            "name": self.run.name,
            "user": self.run.user,
            "status": self.run.status,
            "started_at": self.run.started_at,
            "seconds": round(self.run.seconds, 3),
            "machine": {tag: value for _, tag in _MACHINE if (value := self.run.tags.get(tag))},
            "verdicts": [
                {"name": one.name, "node": one.node, "text": one.text, "source": one.source}
                for one in self.verdicts
            ],
            "figures": {figure.name: figures.get(figure.name) for figure in FIGURES},
            "energy_kwh": self.costs.kwh(figures),
            "energy_not_measured": list(self.unmeasured_energy),
            "carbon_grams": self.costs.carbon_grams(figures),
            "cost": self.costs.price(figures),
            "nodes": [asdict(node.whole) for node in self.summary.nodes],
        }


def report_on(server: Server, run: MeasuredRun, costs: Costs) -> RunReport:
    """Returns the report on a run; reads all its system metrics.

    Raises:
        Fault: the server does not answer.
    """
    histories = {key: read_history(server, run.run_id, key) for key in run.series}
    key = min((key for key in run.metrics if key.startswith(EPOCHS)), default=None)
    epochs = [] if key is None else [at for at, _ in read_history(server, run.run_id, key)]
    return RunReport(run, histories, summarise(histories, run.tags), costs, epochs)
