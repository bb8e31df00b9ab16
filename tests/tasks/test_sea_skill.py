"""gapzoo sea: months are means of their days, scores are known, a sea that ends is refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from models import saved, toy_forecaster
from worlds import expect, toy_archive

from gapzoo import cli
from gapzoo.core import GapzooError
from gapzoo.data.forcing import Variant
from gapzoo.data.inverse import sea_weights
from gapzoo.data.module import world_of
from gapzoo.tasks.sea import SeaSurface
from gapzoo.tasks.sea_skill import monthly, sea_skill

TIMES = pd.DatetimeIndex(["1979-03-01", "1979-07-01"])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def world(archive):
    return world_of(archive)


def sea(world, field):
    """A sea whose SST anomaly at a time is a function of it, (T,) to (T, 1, 1) or (T, H, W)."""

    def slow(times):
        found = np.zeros((len(times), len(world.forcing_channels), *world.grid.shape))
        found[:, world.forcing_channels.index("sea_surface_temperature")] = field(times)
        return found

    return SimpleNamespace(world=world, at=lambda start: Variant(world, slow))


def days(times):
    return np.asarray(times.day, float)[:, None, None]


def test_a_month_is_the_mean_of_its_days(world):
    found = monthly(sea(world, days).at(TIMES[0]), world, pd.Timestamp("1979-02-01"), 3)
    np.testing.assert_allclose(found[:, 0, 0], [14.5, 16.0, 15.5])


def test_scores_of_assumptions_that_are_known(world):
    pattern = np.random.default_rng(0).standard_normal(world.grid.shape)
    truth = sea(world, lambda t: np.tile(pattern, (len(t), 1, 1)))
    wrong = {
        "same": truth,
        "half": sea(world, lambda t: np.tile(pattern / 2, (len(t), 1, 1))),
        "warm": sea(world, lambda t: np.tile(pattern + 0.7, (len(t), 1, 1))),
        "none": sea(world, lambda t: np.zeros((len(t), 1, 1))),
    }
    found = sea_skill(wrong, truth, TIMES, 2)
    w = sea_weights(world)
    rms = np.sqrt((w * pattern**2).sum() / w.sum())
    np.testing.assert_allclose(found["same"].rmse, 0, atol=1e-6)
    np.testing.assert_allclose([found["same"].acc, found["half"].acc], 1, atol=1e-6)
    np.testing.assert_allclose(found["half"].rmse, rms / 2, rtol=1e-6)
    np.testing.assert_allclose(found["none"].rmse, rms, rtol=1e-6)
    assert np.isnan(found["none"].acc).all()
    np.testing.assert_allclose(found["warm"].rmse, 0.7, rtol=1e-6)
    np.testing.assert_allclose(found["warm"].nino34, 0.7, rtol=1e-6)
    product = (w * pattern * (pattern + 0.7)).sum()
    norm = np.sqrt((w * pattern**2).sum() * (w * (pattern + 0.7) ** 2).sum())
    np.testing.assert_allclose(found["warm"].acc, product / norm, rtol=1e-6)


def test_errors_of_starts_are_averaged_by_their_squares(world):
    truth = sea(world, lambda t: np.zeros((len(t), 1, 1)))
    off = sea(world, lambda t: np.where(t.month < 6, 1.0, 3.0)[:, None, None])
    found = sea_skill({"off": off}, truth, TIMES, 1)["off"]
    np.testing.assert_allclose([found.rmse, found.nino34], np.sqrt(5), rtol=1e-6)


def test_a_sea_that_ends_before_the_last_month_is_refused(archive, world):
    truth = SeaSurface("observed", world, archive)
    last = archive.times[-1]
    start = pd.Timestamp(last.year, last.month, 1)
    with expect(GapzooError, "take other dates"):
        sea_skill({"none": SeaSurface("climatology", world)}, truth, [start], 3)


def test_the_command_prints_every_assumption_and_draws_them(tmp_path, capsys):
    toy = toy_archive(tmp_path / "toy.zarr", end="1981-12-31")
    made = toy_forecaster(toy)
    made.world.details["train"] = ["1979-01-01", "1980-12-31"]
    saved(made, tmp_path / "f")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"prior: ''\nforecaster: {tmp_path / 'f'}\ninitial: {toy.path}\neofs: 3\n"
        "years: [1980, 1981]\nstarts: ['05-01']\nmonths: 2\n"
    )
    assert cli.main(["sea", str(recipe), "--png", str(tmp_path / "sea.png")]) == 0
    text = capsys.readouterr().out
    for word in ("persisted", "climatology", "damped", "inverse", "Nino3.4", "month 2"):
        assert word in text
    assert (tmp_path / "sea.png").read_bytes()[:4] == b"\x89PNG"
    assert cli.main(["sea", str(recipe), "months=12"]) == 2  # 1981 ends before
