"""gapzoo forecast on the toy world: what it writes, kills, bad input, where it begins."""

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
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.output import ForecastStore
from gapzoo.recipe import read, typed
from gapzoo.tasks.climate import ClimateRecipe
from gapzoo.tasks.forecast import ForecastRecipe, Forecasts, starts_of
from gapzoo.tasks.initial import Analyses, Drawn, Truth, claim, initial_of
from gapzoo.tasks.rollout import Unphysical
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.sea import SeaSurface
from gapzoo.tasks.seasonal import SeasonalRecipe
from gapzoo.tasks.settings import RolloutSettings, rollout_of

TIMES = pd.DatetimeIndex(["1980-02-01", "1980-03-05"])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def models(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved(toy_prior(archive), folder / "p")
    saved(toy_forecaster(archive), folder / "f")
    return folder


def settings(**changes):
    return RolloutSettings(**{"members": 3, "sampling": {"steps": 2}, "prior": "p"} | changes)


def forecasts(models, archive, folder, **changes):
    """A run of 4 days, written every second, and its starts."""
    wanted = settings(**changes)
    prior, network = (checkpoint.load(models / n) for n in "pf")
    rollout = rollout_of(wanted, prior if wanted.prior else None, network, prior.world)
    run = Forecasts(rollout, folder, TIMES, [48, 96], wanted.members)
    sea = SeaSurface("persisted", rollout.world, archive)
    return run, starts_of(TIMES, Truth(archive, rollout.world, 0.5), sea, wanted)


@pytest.mark.parametrize("changes", [{}, {"form": "renoise"}, {"prior": ""}])
def test_a_forecast_taken_up_again_equals_an_uninterrupted_one(models, archive, tmp_path, changes):
    run, starts = forecasts(models, archive, tmp_path / "whole", **changes)
    assert [f[0].lead for f in run.run(starts)] == [24, 48, 72, 96]
    broken, starts = forecasts(models, archive, tmp_path / "broken", **changes)
    for count, _ in enumerate(broken.run(starts)):
        if count == 2:
            break  # killed after 72 h: 48 h is written
    again, starts = forecasts(models, archive, tmp_path / "broken", **changes)
    assert again.done(starts) == [48]
    assert [f[0].lead for f in again.run(starts)] == [72, 96]
    assert list(again.run(starts)) == []
    for name in ("states", "forecast"):
        pair = [xr.open_zarr(tmp_path / f / f"{name}.zarr").load() for f in ("whole", "broken")]
        xr.testing.assert_identical(*pair)


def test_a_state_half_written_is_written_again(models, archive, tmp_path):
    """A kill between the two stores leaves a lead in one of them."""
    run, starts = forecasts(models, archive, tmp_path)
    states, fields = run.stores()
    for frames in run.run(starts):
        if frames[0].lead == 48:
            break
    states._root["written"][1, 0] = 0
    assert run.done(starts) == []
    assert [f[0].lead for f in run.run(starts)] == [24, 48, 72, 96]
    assert states.complete(TIMES[1]) and fields.complete(TIMES[1])


def test_the_store_holds_what_xarray_needs(models, archive, tmp_path):
    """Members, leads and times by name; the fields are those of the states."""
    run, starts = forecasts(models, archive, tmp_path, prior="")
    *_, last = run.run(starts)
    with xr.open_zarr(tmp_path / "forecast.zarr", decode_timedelta=True) as data:
        one = data.isel(time=1).sel(prediction_timedelta=pd.Timedelta(hours=96))
        assert one["surface_pressure"].dims == ("number", "latitude", "longitude")
        at = run.rollout.world.channels.index("surface_pressure")
        np.testing.assert_array_equal(one["surface_pressure"], last[1].physical[:, at])
        low = one["lowest_level_temperature"].values
        at = run.rollout.world.channels.index("temperature@0.95")
        np.testing.assert_array_equal(low, last[1].physical[:, at])


def test_an_unphysical_state_ends_it_and_keeps_what_was_written(models, archive, tmp_path):
    run, starts = forecasts(models, archive, tmp_path, prior="")
    wild = dataclasses.replace(run.rollout, limit=starts[0].state.abs().max().item() * 0.999)
    run, found = dataclasses.replace(run, rollout=wild), []
    with expect(Unphysical, "member", "left the climate", "give it a guard"):
        found.extend(run.run(starts))
    assert len(found) < 4


def test_states_of_an_archive_are_its_own_and_perturbed_by_its_climate(archive):
    world = forecaster_world(archive)
    exact = Truth(archive, world).states(TIMES[0], MemberGenerator(0, 2))
    row = archive.times.get_indexer(TIMES[:1])
    assert torch.equal(exact[1], Truth(archive, world).reader.state(row)[0])
    many = Truth(archive, world, 0.5).states(TIMES[0], MemberGenerator(0, 400))
    departures = many - exact[:1]
    assert abs(departures.std() - 0.5) < 0.05  # of a climate of variance one
    alone = Truth(archive, world, 0.5).states(TIMES[0], MemberGenerator(0, [7]))
    assert torch.equal(alone[0], many[7])
    with expect(GapzooError, "has no state of 1999-01-01"):
        Truth(archive, world).states(pd.Timestamp("1999-01-01"), MemberGenerator(0, 1))


def forecaster_world(archive):
    return toy_forecaster(archive).world


def test_analyses_give_their_members_and_missing_ones_are_named(archive, tmp_path):
    world = forecaster_world(archive)
    store = ForecastStore(tmp_path / "a.zarr", world, TIMES, members=2)
    physical = Truth(archive, world).reader.physical(archive.times.get_indexer(TIMES))
    store.write(TIMES[0], None, physical)  # two members: two days' states
    source = initial_of(str(tmp_path / "a.zarr"), world)
    assert isinstance(source, Analyses)
    states = source.states(TIMES[0], MemberGenerator(0, [0, 1, 2]))
    expected = world.normalise(physical[None], TIMES[:1])[0]
    assert torch.equal(states, expected[[0, 1, 0]])
    with expect(GapzooError, "was never written"):
        source.states(TIMES[1], MemberGenerator(0, 1))
    with expect(GapzooError, "no analysis of 1980-02-02"):
        source.states(pd.Timestamp("1980-02-02"), MemberGenerator(0, 1))
    turned = dataclasses.replace(world.grid, latitude=tuple(x + 1 for x in world.grid.latitude))
    with expect(GapzooError, "or other points; regrid them"):
        Analyses(tmp_path / "a.zarr", dataclasses.replace(world, grid=turned)).states(
            TIMES[0], MemberGenerator(0, 1)
        )
    with expect(GapzooError, "no initial states at", "nowhere"):
        initial_of(str(tmp_path / "nowhere"), world)


def test_drawn_states_have_the_climate_s_spread(archive):
    made = toy_prior(archive, wiener=True)
    drawn = Drawn(made.prior, made.world, Sampling(steps=12, batch=200))
    states = drawn.states(TIMES[0], MemberGenerator(0, 200))
    assert states.shape == (200, *made.world.shape) and 0.6 < states.std() < 1.5


def test_a_folder_belongs_to_one_recipe(tmp_path):
    claim(tmp_path / "run", "a: 1\n")
    claim(tmp_path / "run", "a: 1\n")
    with expect(GapzooError, "holds another run"):
        claim(tmp_path / "run", "a: 2\n")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"write_hours": 36}, ("write_hours 36", "multiple of the step")),
        ({"sst": "persistent"}, ("sst 'persistent'", "persisted")),
        ({"form": "gauss"}, ("forecast form 'gauss'", "gaussian")),
        ({"device": "nowhere"}, ("device 'nowhere'",)),
        ({"members": 0}, ("'members'",)),
    ],
)
def test_bad_settings_are_refused(changes, parts):
    with expect(GapzooError, *parts):
        ForecastRecipe(**changes)


SHIPPED = {"forecast": ForecastRecipe, "seasonal": SeasonalRecipe, "climate": ClimateRecipe}
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(p for k in SHIPPED for p in (RECIPES / k).glob("*.yaml")))
def test_shipped_recipes_are_what_their_commands_take(path):
    command = "simulate" if path.parent.name == "climate" else path.parent.name
    assert f"gapzoo {command} recipes/{path.parent.name}/{path.name}" in path.read_text()
    wanted = typed(SHIPPED[path.parent.name], read(path), str(path))
    assert wanted.members >= 1 and wanted.hours == 24


def test_the_command_writes_stores_and_a_page(models, archive, tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"prior: {models / 'p'}\nforecaster: {models / 'f'}\ninitial: {archive.path}\n"
        "times: ['1980-02-01', '1980-02-10']\nlead_days: 3\nmembers: 2\nsampling: {steps: 2}\n"
    )
    words = ["forecast", str(recipe), "--output", str(tmp_path / "out")]
    assert cli.main(words) == 0 and cli.main(words) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Against the truth" in page and "member 1" not in page.split("<img")[0]
    assert cli.main([*words[:2], "guard=9", *words[2:]]) == 2
    assert "holds another run" in capsys.readouterr().err
