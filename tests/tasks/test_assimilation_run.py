"""gapzoo assimilate on the toy world: what it writes, kills, rejected observations."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from models import saved, toy_forecaster, toy_prior
from worlds import expect, toy_archive

from gapzoo import checkpoint, cli
from gapzoo.commands import assimilate
from gapzoo.core import GapzooError
from gapzoo.data.module import Reader, world_of
from gapzoo.data.observations import ColumnStations, Observations, simulate, standard_errors
from gapzoo.recipe import read, typed
from gapzoo.tasks import Sampling
from gapzoo.tasks.assimilate import Run
from gapzoo.tasks.assimilation import Assimilation
from gapzoo.tasks.assimilation_recipe import AssimilationRecipe

RECIPES = Path(__file__).parents[2] / "recipes" / "assimilation"
DAYS = pd.date_range("1980-02-01", periods=4, freq="D")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def models(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved(toy_prior(archive), folder / "p")
    saved(toy_forecaster(archive), folder / "f")
    return folder


def network(world):
    """The two rows beside the equator, where the toy world's values are plausible."""
    columns = [[row, column] for row in (1, 2) for column in range(8)]
    return ColumnStations.at(torch.tensor(columns), world.grid, world.channels)


@pytest.fixture(scope="module")
def observations(archive):
    """Columns daily; then a gross error, a variable that is none of the world's, an
    observation long before the others' times."""
    world = world_of(archive)
    reader, parts = Reader(archive, world), []
    net = network(world)
    errors = standard_errors(net, world.channels)
    for day in DAYS:
        here = archive.indices(str(day.date()), str(day.date()))
        y = simulate(reader.physical(here)[0], net, errors, int(here[0]))
        parts.append(Observations.from_operator(net, world.channels, y, errors, day))
    table = Observations.concatenate(parts).table
    bad = table.iloc[[0, 1, 2]].copy()
    bad["value"] = [table["value"][0] + 200.0, 280.0, table["value"][2]]
    bad["variable"] = [bad["variable"].iloc[0], "2m_temperature", bad["variable"].iloc[2]]
    bad["station"], bad["level"] = "bad", [bad["level"].iloc[0], np.nan, bad["level"].iloc[2]]
    bad.loc[bad.index[2], "time"] = DAYS[0] - pd.Timedelta(days=9)
    return Observations(pd.concat([table, bad]), "sigma")


RECIPE = AssimilationRecipe(
    hours=24, start=str(DAYS[0]), end=str(DAYS[-1]), members=3, sampling={"steps": 2}, limit=0.0
)


def run(models, observations, folder, **changes) -> Run:
    prior, forecaster = (checkpoint.load(models / n) for n in "pf")
    recipe = dataclasses.replace(RECIPE, **changes)
    task = Assimilation(
        prior=prior.prior,
        world=prior.world,
        sampling=Sampling.of(recipe.sampling),
        forecaster=forecaster.forecaster,
        form=recipe.form,
        error=forecaster.error(24),
    )
    return Run(task, recipe, observations, folder, identity="test\n")


class Killed(Exception):
    """In the place of a signal."""


@pytest.mark.parametrize("changes", [{}, {"hours": 48, "slot": 24}], ids=["daily", "window"])
def test_a_run_taken_up_again_equals_an_uninterrupted_one(models, observations, tmp_path, changes):
    run(models, observations, tmp_path / "whole", **changes).run()
    broken = run(models, observations, tmp_path / "broken", **changes)

    def kill(count):
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            broken.run(kill)
    again = run(models, observations, tmp_path / "broken", **changes)
    assert again.run() == len(again.times) - 1
    assert again.run() == 0
    for name in ("analyses", "increments"):
        pair = [xr.open_zarr(tmp_path / f / f"{name}.zarr").load() for f in ("whole", "broken")]
        xr.testing.assert_identical(pair[0].drop_attrs(), pair[1].drop_attrs())
    pair = [
        pd.concat(r.innovations()) for r in (again, run(models, observations, tmp_path / "whole"))
    ]
    pd.testing.assert_frame_equal(*pair)


def test_increments_and_innovations_are_what_they_say(models, observations, tmp_path):
    """Analysis less forecast, and y compared with both, at the stations' own points."""
    one = run(models, observations, tmp_path, form="gaussian")
    one.run()
    table = pd.concat(one.innovations())
    last = table[(table["slot"] == DAYS[-1]) & (table["reason"] == "")]
    analysis, increment = one.last("analyses"), one.last("increments")
    world = one.task.world
    net = network(world)
    for name, states in (("analysis", analysis), ("background", analysis - increment)):
        seen = net(torch.from_numpy(states)).numpy()
        np.testing.assert_allclose(last[name], seen.mean(0), rtol=1e-4)
        np.testing.assert_allclose(
            last[f"{name}_spread"], seen.std(0, ddof=1), rtol=2e-2, atol=2e-2
        )
    assert (last["value"] - last["analysis"]).std() < (last["value"] - last["background"]).std()


def test_the_command_writes_stores_reports_and_every_rejected_row(
    models, observations, tmp_path, capsys
):
    table, recipe = tmp_path / "obs.parquet", tmp_path / "recipe.yaml"
    observations.write(table)
    recipe.write_text(
        f"prior: {models / 'p'}\nforecaster: {models / 'f'}\nhours: 24\nmembers: 2\n"
        f"start: '{DAYS[0]}'\nend: '{DAYS[1]}'\nsampling: {{steps: 2}}\nlimit: 0\n"
    )
    words = [
        "assimilate",
        str(recipe),
        "--observations",
        str(table),
        "--output",
        str(tmp_path / "o"),
    ]
    assert cli.main(words) in (0, None)
    said = capsys.readouterr().out
    rejected = pd.read_parquet(tmp_path / "o" / "rejected.parquet")
    bad = rejected[rejected["station"] == "bad"]
    assert len(bad) == 3 and len(rejected) == 3 + 2 * 3 * 16
    reasons = " ".join(bad["reason"])
    for part in ("plausible", "not among the channels", "outside the run's cycles"):
        assert part in reasons
    assert "not used: outside the run's cycles" in " ".join(said.split())
    page = (tmp_path / "o" / "report.html").read_text()
    assert "temperature" in page and page.count("<img") >= 3
    data = xr.open_zarr(tmp_path / "o" / "analyses.zarr")
    assert data.sizes["number"] == 2 and list(data["time"].values) == list(DAYS[:2].values)
    assert cli.main([*words[:2], "members=3", *words[2:]]) == 2
    assert "holds another run" in " ".join(capsys.readouterr().err.split())


def test_a_static_error_may_be_measured_from_truths(archive, tmp_path, capsys):
    """Of persistence over two cycles: a cycle's share of what changes in the archive."""
    saved(toy_prior(archive, wiener=True), tmp_path / "p")
    days = ["1980-01-01", "1980-12-31"]
    words = {"prior": str(tmp_path / "p"), "forecaster": "persistence", "hours": 24}
    words |= {"measured": 48, "truth": str(archive.path), "truth_days": days, "inflation": 2.0}
    wanted, prior = AssimilationRecipe(**words), checkpoint.load(tmp_path / "p")
    found = assimilate._task(wanted, prior).error.eigenvalues
    rows = archive.indices(*days)
    rows = rows[np.linspace(0, len(rows) - 1, 50).astype(int)]
    rows = rows[archive.runs[rows] == archive.runs[np.minimum(rows + 2, len(archive.times) - 1)]]
    rows, reader = rows[rows + 2 < len(archive.times)], Reader(archive, prior.world)
    later = prior.world.normalise(reader.physical(rows)[:, None], archive.times[rows + 2])[:, 0]
    expected = prior.covariance.of(later - reader.state(rows + 2)).eigenvalues
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert "errors of the forecaster" in capsys.readouterr().out
    with expect(GapzooError, "has no step from 1950-01-01"):
        late = dataclasses.replace(wanted, truth_days=["1950-01-01", "1950-12-31"])
        assimilate._task(late, prior)


def test_recipes_that_cannot_be_are_named():
    for changes, part in (
        ({"form": "hybird"}, "did you mean 'hybrid'"),
        ({"window": "middle"}, "window 'middle'"),
        ({"slot": 5}, "multiple of 'slot'"),
        ({"sampling": {"step": 3}}, "no sampling option 'step'"),
        ({"filter": {"adaptive": 0.1}}, "adaptive inflation"),
        ({"form": "hybrid", "window": "start"}, "'hybrid' localises observations"),
        ({"measured": 48}, "from the archive 'truth'"),
        ({"measured": 48, "truth": "a.zarr", "form": "renoise"}, "has no static error"),
        ({"measured": 45, "truth": "a.zarr"}, "multiple of the cycle's 6 h"),
        ({"truth_days": ["1980-01-01"]}, "a first and a last day"),
    ):
        with expect(GapzooError, part):
            AssimilationRecipe(**changes)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_one(path):
    found = typed(AssimilationRecipe, read(path), str(path))
    assert f"recipes/assimilation/{path.name} --observations" in path.read_text()
    assert checkpoint.find(found.prior)
