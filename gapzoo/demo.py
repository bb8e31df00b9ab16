"""The demo: simulate, assimilate, forecast, score, in some minutes on two cores.

Runs SPEEDY for a month that no checkpoint has seen, observes 1 % and 10 % of its columns, draws
analysis ensembles from the prior under those observations, forecasts ten days from the better one
and writes one page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

from gapzoo import checkpoint
from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.data.archive import Archive
from gapzoo.data.build import Build
from gapzoo.evaluators.crps import gaussian_crps
from gapzoo.leaderboard.forecasts import FORECASTS
from gapzoo.leaderboard.methods import METHODS, Case, Network, Setting, case, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores
from gapzoo.report import figures
from gapzoo.report.page import Page

PRIOR = "unet_small.speedy-t21-v4"
FORECASTER = "crpscast_small.speedy-t21-v8"
DETERMINISTIC = "convcast_small.speedy-t21-v3"
SHOWN = ("temperature@0.835", "u_component_of_wind@0.34", "surface_pressure")
CONSOLE = Console()


@dataclass
class Demo:
    """What the demo does.

    Args:
        folder: where the truth and the page go.
        prior: checkpoint of the prior.
        forecaster: checkpoint of the forecasting network.
        start: first day of the truth, outside the training years.
        densities: shares of the columns observed.
        members: of the ensembles.
        lead_days: of the forecast.
        steps: sampler steps of an analysis.
        seed: of everything.
    """

    folder: Path = Path("demo")
    prior: str = PRIOR
    forecaster: str = FORECASTER
    start: str = "2010-01-01"
    densities: tuple[float, ...] = (0.01, 0.1)
    members: int = 16
    lead_days: int = 10
    steps: int = 16
    seed: int = 0
    networks: dict[float, Network] = field(default_factory=dict)
    page: Page = field(default_factory=lambda: Page("gapzoo demo"))

    def run(self) -> Path:
        """Do it all; the page's path."""
        prior = checkpoint.load(self.prior)
        archive = self._truth()
        self._check_period(prior, archive)
        setting = Setting(archive, prior.world)
        position = int(archive.indices(None, None)[40])
        cases, analyses, scores = self._analyse(setting, position)
        self._write_analyses(setting, cases, analyses, scores)
        forecasts = self._forecast(setting, position, analyses[max(self.densities)])
        self._write_forecasts(forecasts)
        return self.page.write(self.folder / "report.html")

    def _truth(self) -> Archive:
        CONSOLE.print("[bold]1/3[/bold] SPEEDY runs for seven months; the last one is the truth")
        end = pd.Timestamp(self.start) + pd.Timedelta(days=29)
        source = {"truncation": 21, "start": self.start, "end": f"{end:%Y-%m-%d}"}
        source["seed"] = self.seed
        build = Build("speedy", source, self.folder / "truth.zarr", ("1979-01-01", "2003-12-31"))
        return build.run(workers=1)

    def _check_period(self, prior: checkpoint.Checkpoint, archive: Archive) -> None:
        first, last = prior.world.details["train"]
        if pd.Timestamp(first) <= archive.times[0] <= pd.Timestamp(last):
            raise GapzooError(
                f"the truth starts {self.start}, in a training year; take a later one"
            )

    def _analyse(
        self, setting: Setting, position: int
    ) -> tuple[dict[float, Case], dict[float, Tensor], dict[str, dict[str, Any]]]:
        CONSOLE.print("[bold]2/3[/bold] the prior under observations of whole columns")
        method = METHODS.build("gap", setting=setting, prior=self.prior, steps=self.steps)
        cases, analyses, scores = {}, {}, {}
        with _bar() as bar:
            task = bar.add_task("analyses", total=len(self.densities))
            for density in self.densities:
                network = Network(setting.world, density, derive_seed(self.seed, "net"))
                method.prepare(network)
                self.networks[density] = network
                here = case(setting, network, position, self.seed)
                generator = members_of(self.seed, self.members, density, here.time)
                cases[density], analyses[density] = here, method.draw(here, generator)
                one = Scores(setting.world)
                one.add(analyses[density], here.truth)
                scores[f"GAP, {density:.0%} of the columns"] = one.summary()
                bar.advance(task)
        reference = next(iter(cases.values()))
        return cases, analyses, {"climatology": _climatology(setting, reference), **scores}

    def _write_analyses(
        self,
        setting: Setting,
        cases: dict[float, Case],
        analyses: dict[float, Tensor],
        scores: dict[str, dict[str, Any]],
    ) -> None:
        here = next(iter(cases.values()))
        page = self.page
        page.text(
            f"Truth: SPEEDY T21 (64 x 32, 8 levels), {here.time:%Y-%m-%d %H:%M}, a year that the "
            f"checkpoints did not see. {self.members} members, seed {self.seed}. Scores are means "
            "over 33 channels, each divided by its climatological spread; CRPS is the fair "
            "estimator. One date is an illustration; the README's tables are over many."
        )
        page.heading("Analysis from observed columns")
        head = ("", "CRPS", "RMSE", "spread/skill")
        rows = [(n, s["crps"], s["rmse"], s.get("spread_skill", "")) for n, s in scores.items()]
        page.table(head, rows)
        _print("one-time analysis", head, rows)
        for label in SHOWN:
            maps = _maps(setting, here, analyses, self.networks, label)
            page.figure(maps, f"{label}: {_CAPTION}")
        ranks = {n: s["ranks"] for n, s in scores.items() if "ranks" in s}
        page.figure(figures.rank_histograms(ranks), "Rank histograms over all channels and points.")

    def _forecast(
        self, setting: Setting, position: int, analysis: Tensor
    ) -> dict[str, dict[int, dict[str, Any]]]:
        CONSOLE.print(f"[bold]3/3[/bold] {self.lead_days}-day forecasts from the analysis")
        settings = {"cases": 1, "members": self.members, "lead_days": self.lead_days}
        protocol = Protocol("demo", "weather", **settings)  # type: ignore[arg-type]
        nets = {"prior": self.prior, "forecaster": self.forecaster}
        entries: dict[str, dict[str, Any]] = {
            "gap": nets,
            "crpscast": {"forecaster": self.forecaster},
            "convcast": {"forecaster": DETERMINISTIC},
            "persistence": {},
        }
        time = setting.archive.times[position]
        forcing = setting.reader.forcing(np.array([position]))[0]
        found: dict[str, dict[int, dict[str, Any]]] = {"climatology": {}}
        with _bar() as bar:
            task = bar.add_task("forecasts", total=len(entries) * self.lead_days)
            for name, options in entries.items():
                method = FORECASTS.build(name, setting=setting, protocol=protocol, **options)
                generator = members_of(self.seed, self.members, "forecast", time)
                found[name] = {}
                for later, state in method.run(analysis, time, forcing, generator):
                    day = (later - time).days
                    truth = _at(setting, later)
                    one = Scores(setting.world)
                    one.add(state, truth.truth)
                    found[name][day] = one.summary()
                    found["climatology"].setdefault(day, _climatology(setting, truth))
                    bar.advance(task)
        return found

    def _write_forecasts(self, found: dict[str, dict[int, dict[str, Any]]]) -> None:
        page, days = self.page, sorted(found["gap"])
        page.heading("Forecast from the analysis")
        shown = [d for d in days if d in (1, 2, 3, 5, 7, 10)]
        head = ("CRPS at day", *map(str, shown))
        rows = [(n, *(s[d]["crps"] for d in shown)) for n, s in found.items()]
        page.table(head, rows)
        _print("forecast", head, rows)
        lines = {n: (days, [s[d]["crps"] for d in days]) for n, s in found.items()}
        chart = figures.curves(
            lines, title="CRPS (absolute error of one member)", x="lead, days", y="CRPS / spread"
        )
        page.figure(chart, "CRPS by lead, mean over channels.")
        gap = found["gap"]
        spread = [gap[d]["spread_skill"] * gap[d]["rmse"] for d in days]
        lines = {"RMSE": (days, [gap[d]["rmse"] for d in days]), "spread": (days, spread)}
        chart = figures.curves(lines, title="GAP: error and spread", x="lead, days", y="/ spread")
        page.figure(chart, "Error of the ensemble mean and corrected spread; equal if calibrated.")


_CAPTION = "truth, then for each density the analysis mean with its stations, error and spread."


def _at(setting: Setting, time: pd.Timestamp) -> Case:
    position = int(setting.archive.times.get_loc(time))  # type: ignore[arg-type]
    state = setting.reader.state(np.array([position]))[0]
    return Case(position, time, state, torch.empty(0), np.empty(0))


def _climatology(setting: Setting, here: Case) -> dict[str, Any]:
    """Scores of the Gaussian climatology of the day."""
    world, then = setting.world, pd.DatetimeIndex([here.time])
    std = torch.from_numpy(world.climatology.std(then)[0]).float()
    anomaly = here.truth * world.std
    weights = torch.from_numpy(world.grid.area_weights)[:, None] / anomaly[0].numel()
    crps = (gaussian_crps(torch.zeros_like(std), std, anomaly) * weights).sum((-2, -1)).numpy()
    mse = (anomaly.double() ** 2 * weights).sum((-2, -1)).numpy()
    rmse = float(np.sqrt(np.mean(mse / world.spread**2)))
    return {"crps": float(np.mean(crps / world.spread)), "rmse": rmse}


def _maps(
    setting: Setting,
    here: Case,
    analyses: dict[float, Tensor],
    networks: dict[float, Network],
    label: str,
) -> Any:
    """Truth and analyses of one channel."""
    world, then = setting.world, pd.DatetimeIndex([here.time])
    channel = world.channels.index(label)
    scale, units = 1.0, world.channels[channel].units
    if label == "surface_pressure":
        scale, units = 0.01, "hPa"
    rows = {}
    for density, members in analyses.items():
        field = world.denormalise(members[None], then)[0, :, channel].numpy() * scale
        stations = networks[density].positions
        rows[f"analysis, {density:.0%} of columns"] = field.mean(0), field.std(0, ddof=1), stations
    truth = world.denormalise(here.truth[None], then)[0, channel].numpy() * scale
    land = setting.archive.static("land_sea_mask")
    return figures.analysis_maps(world.grid, land, truth, rows, label, units)


def _bar() -> Progress:
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=CONSOLE)


def _print(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = Table(title=title)
    for n, name in enumerate(head):
        table.add_column(name, justify="right" if n else "left")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    CONSOLE.print(table)
