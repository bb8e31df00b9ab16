"""A checkpoint on another realisation of its world: what it draws is the same in SI units."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from models import saved, toy_forecaster, toy_prior
from worlds import expect, toy_archive

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.climatology import Climatology
from gapzoo.data.module import world_of
from gapzoo.leaderboard.cycles import CYCLES
from gapzoo.leaderboard.forecasts import FORECASTS
from gapzoo.leaderboard.methods import METHODS, Network, Setting, case
from gapzoo.leaderboard.protocol import Cycling, Protocol

FIRST, SECOND = 400, 401
FAST = {"steps": 2}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("realisations") / "toy.zarr")


@pytest.fixture(scope="module")
def models(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {"prior": toy_prior(archive, wiener=True), "plain": toy_prior(archive)}
    made |= {"forecaster": toy_forecaster(archive)}
    return {name: str(saved(one, folder / name)) for name, one in made.items()}


@pytest.fixture(scope="module")
def settings(archive):
    """The world of the checkpoints, and one whose mean and spread are other ones everywhere."""
    own = world_of(archive)
    mean, variance = own.climatology.mean_coefficients, own.climatology.variance_coefficients
    apart = 0.3 * own.std.numpy() * np.array([1.0, -1.0, 0.5])[:, None, None]
    other = Climatology(np.concatenate([mean[:1] + apart, mean[1:]]), 1.44 * variance)
    return [Setting(archive, w) for w in (own, dataclasses.replace(own, climatology=other))]


def protocol() -> Protocol:
    settings = {"world": "toy", "period": ["1980-01-01", "1980-12-31"], "cases": 1, "members": 3}
    settings |= {"densities": [0.5], "lead_days": 2, "hours": 24, "cycling": Cycling()}
    return Protocol(name="toy", track="weather", **settings)


def network_of(setting):
    made = Network(setting.world, 0.5, 3)
    made.label = "0.5"
    return made


def analysis(setting, models):
    method = METHODS.build("gap", setting=setting, prior=models["prior"], **FAST)
    method.prepare(network_of(setting))
    here = case(setting, method.network, FIRST, 0)
    return [(here.time, method.draw(here, MemberGenerator(1, 3)))]


def weather(setting, entry, **options):
    method = FORECASTS.build(entry, setting=setting, protocol=protocol(), **options)
    here = case(setting, network_of(setting), FIRST, 0)
    initial = here.truth.expand(3, -1, -1, -1)
    return list(method.run(initial, here.time, here.forcing, MemberGenerator(1, 3)))


def gap_weather(setting, models):
    networks = {"prior": models["plain"], "forecaster": models["forecaster"]}
    return weather(setting, "gap", **networks, **FAST)


def convcast(setting, models):
    return weather(setting, "convcast", forecaster=models["forecaster"])


def cycle(setting, models):
    options = {"prior": models["prior"], "forecaster": models["forecaster"], **FAST}
    options |= {"form": "mean", "static": 0.1}
    method = CYCLES.build("gap", setting=setting, protocol=protocol(), **options)
    method.prepare(network_of(setting))
    cases = [case(setting, method.network, row, 0) for row in (FIRST, SECOND)]
    drawn = method.analyse(cases[0], None, MemberGenerator(1, 3))
    background = method.carry(drawn, *cases, MemberGenerator(2, 3))
    return [
        (cases[0].time, drawn),
        (cases[1].time, background),
        (cases[1].time, method.analyse(cases[1], background, MemberGenerator(3, 3))),
    ]


def test_a_tuned_cycle_takes_each_networks_own_options(settings, models, tmp_path):
    """As if they were given; what is given beats what was tuned."""
    path, setting = tmp_path / "tuned.json", settings[0]
    own = {"form": "mean", "static": 0.4, "steps": 2, "prior": "left out"}
    path.write_text(json.dumps({"best": {"0.5": own, "0.9": {"static": 0.1}}}))
    base = {"prior": models["prior"], "forecaster": models["forecaster"]}
    base |= {k: v for k, v in FAST.items() if k != "steps"}
    background, drawn = setting.reader.state(np.arange(3)), []
    for options in ({"tuned": str(path)}, {"form": "mean", "static": 0.4, "steps": 2}):
        method = CYCLES.build("gap", setting=setting, protocol=protocol(), **base, **options)
        method.prepare(network_of(setting))
        here = case(setting, method.network, SECOND, 0)
        drawn.append(method.analyse(here, background, MemberGenerator(3, 3)))
    assert torch.equal(*drawn)
    given = {**base, "tuned": str(path), "static": 0.2}
    method = CYCLES.build("gap", setting=setting, protocol=protocol(), **given)
    assert method.chosen("0.5")["static"] == 0.2 and method.chosen("0.5")["form"] == "mean"
    assert method.provenance()["options"]["tuned"]["0.9"] == {"static": 0.1}


def persisted(setting, steps: int, count: int) -> torch.Tensor:
    """Errors of persistence over some steps, from states of 1980."""
    rows, runs = setting.archive.indices("1980-01-01", "1980-12-31"), setting.archive.runs
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    rows = rows[rows + steps < len(setting.archive.times)]
    rows = rows[runs[rows] == runs[rows + steps]]
    later = setting.archive.times[rows + steps]
    forecasts = setting.world.normalise(setting.reader.physical(rows)[:, None], later)[:, 0]
    return forecasts - setting.reader.state(rows + steps)


def test_a_static_error_is_what_the_model_errs_by_in_the_validation_years(settings, models):
    """Persistence errs by what changes in a cycle; normalisation is the checkpoint's either way."""
    found = []
    for setting in settings:
        setting = dataclasses.replace(setting, validate=("1980-01-01", "1980-12-31"))
        method = CYCLES.build(
            "gap",
            setting=setting,
            protocol=protocol(),
            prior=models["prior"],
            forecaster="persistence",
            static="measured",
            inflation=0.5,
            **FAST,
        )
        found.append(method.task.error.eigenvalues)
    expected = 0.5 * method.prior.covariance.of(persisted(settings[0], 1, 100)).eigenvalues
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)
    hours = method.protocol.hours
    longer = method._task({**method.chosen(""), "over": 2 * hours}).error.eigenvalues
    expected = 0.5 / 2 * method.prior.covariance.of(persisted(settings[0], 2, 50)).eigenvalues
    torch.testing.assert_close(longer, expected, rtol=1e-4, atol=1e-7)
    with expect(GapzooError, "errors over 36 h", "multiple"):
        method._task({**method.chosen(""), "over": 36})
    with expect(GapzooError, "static 'guessed'"):
        method._task({**method.chosen(""), "static": "guessed"})
    with expect(GapzooError, "over=48 is of static=measured"):
        method._task({**method.chosen(""), "static": 0.1, "over": 48})


@pytest.mark.parametrize("draw", [analysis, gap_weather, convcast, cycle])
def test_draws_are_the_same_in_si_units(settings, models, draw):
    """To float32's rounding, though they are normalised otherwise by a third of a spread."""
    found = [draw(setting, models) for setting in settings]
    for (time, here), (then, there) in zip(*found, strict=True):
        assert time == then
        days = pd.DatetimeIndex([time])
        worlds = [setting.world for setting in settings]
        si = [w.denormalise(z[None], days)[0] for w, z in zip(worlds, (here, there), strict=True)]
        spread = torch.from_numpy(worlds[0].spread).float()[:, None, None]
        assert ((si[0] - si[1]) / spread).abs().max() < 1e-3
        assert ((here - there).abs() > 0.1).float().mean() > 0.5


def test_a_world_that_normalises_alike_leaves_states_untouched(settings):
    own, other = (setting.world for setting in settings)
    z, days = torch.randn(1, *own.shape), pd.DatetimeIndex(["1980-05-01"])
    nearly = dataclasses.replace(own, name="another name")
    assert own.renormalise(z, days, nearly) is z
    back = own.renormalise(other.renormalise(z, days, own), days, other)
    torch.testing.assert_close(back, z, rtol=0, atol=2e-4)
    moved = other.renormalise(z, days, own)[0]
    known = (z[0] - torch.tensor([0.3, -0.3, 0.15])[:, None, None]) / 1.2
    torch.testing.assert_close(moved, known, rtol=0, atol=2e-4)


def test_another_grid_is_refused(settings, models, tmp_path):
    finer = toy_archive(tmp_path / "finer.zarr", height=8, width=16)
    with expect(GapzooError, "checkpoint 'unet_small.toy'", "another grid"):
        analysis(Setting(finer, world_of(finer)), models)
    with expect(GapzooError, "checkpoint 'convcast_small.toy'", "another grid"):
        convcast(Setting(finer, world_of(finer)), models)
