"""gapzoo seasonal: monthly means, kills, cross-validation, known skill, the sea's assumptions."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from models import saved, toy_forecaster, toy_prior
from worlds import expect, flat_world, toy_archive

from gapzoo import checkpoint, cli
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.inverse import LinearInverse, lagged, monthly_anomalies
from gapzoo.data.module import Reader, world_of
from gapzoo.tasks.diagnostics import Diagnostics
from gapzoo.tasks.forecast import starts_of
from gapzoo.tasks.hindcast import Hindcast, correlation, others_mean, summary, windows
from gapzoo.tasks.initial import Truth
from gapzoo.tasks.rollout import Rollout, Start
from gapzoo.tasks.sea import SeaSurface
from gapzoo.tasks.seasonal import MonthlyMeans, SeasonalRecipe, Seasons, truth_months, unbroken
from gapzoo.tasks.settings import RolloutSettings

TIMES = pd.DatetimeIndex(["1979-05-01", "1980-05-01", "1979-11-01"])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def world(archive):
    return world_of(archive)


@pytest.fixture(scope="module")
def forecaster(archive):
    return toy_forecaster(archive).forecaster


def seasons(archive, forecaster, folder, months=2):
    world = forecaster.world
    rollout = Rollout(forecaster=forecaster, world=world, hours=24)
    run = Seasons(rollout, folder, TIMES, months, 2)
    settings = RolloutSettings(prior="", members=2)
    sea = SeaSurface("persisted", world, archive, known_days=17)

    def starts(times):
        return starts_of(times, Truth(archive, world, 0.3), sea, settings, "seasonal")

    return run, starts


def test_months_are_written_and_cut_off_starts_done_again(archive, forecaster, tmp_path):
    run, starts = seasons(archive, forecaster, tmp_path / "whole")
    groups = run.left(2)
    assert [list(g) for g in groups] == [list(TIMES[:2]), list(TIMES[2:])]
    done = []
    for group in groups:
        run.run(starts(group), done.append)
    assert sum(done) == 6 and run.left(2) == []
    broken, starts = seasons(archive, forecaster, tmp_path / "broken")

    def kill(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.run(starts(groups[0]), kill)
    assert [list(g) for g in broken.left(2)] == [list(g) for g in groups]
    for group in broken.left(2):
        broken.run(starts(group))
    pair = [xr.open_zarr(tmp_path / f / "monthly.zarr").load() for f in ("whole", "broken")]
    xr.testing.assert_identical(*pair)
    alone, starts = seasons(archive, forecaster, tmp_path / "alone")
    alone.run(starts(TIMES[1:2]))
    one = xr.open_zarr(tmp_path / "alone" / "monthly.zarr").load().isel(time=1)
    np.testing.assert_allclose(
        one["surface_pressure"], pair[0].isel(time=1)["surface_pressure"], rtol=1e-6
    )


def test_monthly_means_are_calendar_months():
    """Steps that hold their own day: February of a leap year has the mean of its days."""
    means, found = MonthlyMeans(pd.Timestamp("1980-01-01"), 2), []
    for day in range(1, 60):
        time = pd.Timestamp("1980-01-01") + pd.Timedelta(days=day)
        whole = means.add(time, np.array([float(time.day)]), 24)
        if whole is not None:
            found.append((time, float(whole[0])))
    assert found[0] == (pd.Timestamp("1980-01-31"), np.mean(range(2, 32)))
    assert found[1] == (pd.Timestamp("1980-02-29"), np.mean(range(1, 30)))
    assert means.complete


def test_truth_is_averaged_at_the_same_steps(archive, world):
    found = truth_months(archive, world, TIMES[1], 2, 24)
    fields = Diagnostics(world)
    for month, mean in ((4, found[0]), (6, found[2])):
        rows = np.flatnonzero((archive.times.year == 1980) & (archive.times.month == month))
        direct = fields(Reader(archive, world).physical(rows)).double().mean(0)
        np.testing.assert_allclose(mean, direct, rtol=1e-7)
    with expect(GapzooError, "no states of all of 1981-01"):
        truth_months(archive, world, pd.Timestamp("1980-12-01"), 2, 24)


def test_a_season_is_unbroken_where_one_run_made_all_of_it(archive):
    """The toy's runs are of 240 days: the second begins on 1979-08-29, the third on 1980-04-25."""
    first, second = archive.times[np.flatnonzero(np.diff(archive.runs))[:2] + 1]
    assert (first, second) == (pd.Timestamp("1979-08-29"), pd.Timestamp("1980-04-25"))
    assert unbroken(archive, pd.Timestamp("1979-02-01"), 6)
    assert not unbroken(archive, pd.Timestamp("1979-03-01"), 6)
    assert not unbroken(archive, pd.Timestamp("1979-09-01"), 3)  # the month before is another run's
    assert unbroken(archive, pd.Timestamp("1979-10-01"), 6)
    assert not unbroken(archive, pd.Timestamp("1979-10-01"), 7)
    assert unbroken(archive, pd.Timestamp("1980-12-01"), 6)  # what is missing is refused elsewhere


def cases(world, signal, years=200, members=10, seed=0):
    """Years of truth s + n and members s + n, with variances signal^2 and 1 - signal^2."""
    g, shape = np.random.default_rng(seed), world.grid.shape
    s = signal * g.standard_normal((years, *shape))
    noise = np.sqrt(1 - signal**2)
    truth = s + noise * g.standard_normal((years, *shape))
    members = s[:, None] + noise * g.standard_normal((years, members, *shape))
    return Hindcast(5.0 + 2.0 * members, truth, world)


def test_skill_is_what_signal_and_noise_give(world):
    """Correlation of the mean of M members with the truth: s^2 / sqrt(s^2 + (1 - s^2) / M)."""
    case = cases(world, 0.8)
    np.testing.assert_allclose(case.bias, 5.0, atol=0.5)
    expected = 0.64 / np.sqrt(0.64 + 0.36 / 10)
    assert abs(case.acc().mean() - expected) < 0.02
    scores = summary(case)
    assert abs(scores["acc_global"] - expected) < 0.02
    assert 0.2 < scores["rpss_tropics"] < 0.5
    none = cases(world, 0.0)
    assert abs(none.acc().mean()) < 0.03 and abs(none.rpss()["global"]) < 0.03


def test_calibrated_forecasts_are_reliable(world):
    table = cases(world, 0.8, years=400).reliability()
    kept = table[table[:, 2] > 0.03]
    np.testing.assert_allclose(kept[:, 1], kept[:, 0], atol=0.08)
    assert kept[0, 1] < 0.15 and kept[-1, 1] > 0.75


def test_a_year_does_not_know_its_own_bias(world):
    """Cross-validation: the year's own value leaves its climatology as it is."""
    values = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(others_mean(values), [4.0, 3.5, 1.5])
    case = cases(world, 0.5, years=4)
    changed = Hindcast(case.forecast.copy(), case.truth, world)
    changed.forecast[2] += 10.0
    moved = changed.anomalies[0] - case.anomalies[0]
    np.testing.assert_allclose(moved[2], 10.0)
    np.testing.assert_allclose(moved[0], -10.0 / 3)
    with expect(GapzooError, "2 years at least"):
        others_mean(values[:1])


def test_indices_find_a_seesaw(world):
    """Pressure high at 40 and low at 70 degrees north: that annular mode, and no other."""
    lat = np.asarray(world.grid.latitude)
    seesaw = np.where((lat > 20) & (lat < 46), 1.0, np.where(lat > 60, -1.0, 0.0))[:, None]
    years = np.array([1.0, -1.0, 2.0, -2.0])[:, None, None]
    truth = years * seesaw * np.ones(world.grid.shape)
    case = Hindcast(truth[:, None] * 0.5, truth, world)
    f, o = case.index("northern_annular_mode")
    assert correlation(f.mean(1), o) > 0.999 and np.argmax(o) == 2
    assert np.allclose(f[:, 0], o / 2)
    assert np.abs(case.index("southern_annular_mode")[1]).max() < 1e-9
    slope_f, slope_o = case.response(np.array([1.0, -1.0, 2.0, -2.0]))
    assert np.allclose(slope_f, slope_o / 2)


def test_windows_are_means_of_three():
    months = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(windows(months, 1)[0], [1, 2, 3, 4])
    with expect(GapzooError, "2 months; a season takes 3"):
        windows(months[:, :2], 1)


def test_a_linear_inverse_model_carries_a_damped_turn_exactly():
    """Two patterns that turn into each other and decay; the rest forgets at its own pace."""
    angle, n = 0.3, 600
    turn = 0.95 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    weights = np.array([[1.0, 2.0, 1.0, 0.0]])
    patterns = np.zeros((2, 1, 4))
    patterns[0, 0, 0], patterns[1, 0, 1] = 1.0, 1 / np.sqrt(2)
    g, x = np.random.default_rng(0), np.zeros((n, 2))
    for t in range(1, n):
        x[t] = turn @ x[t - 1] + g.standard_normal(2)
    anomalies = np.tensordot(x, patterns, 1)
    model = LinearInverse.fit(anomalies, weights, eofs=2)
    later = model.forecast(anomalies[-1], np.array([0.0, 1.0, 2.5, 4.0]))
    np.testing.assert_allclose(later[0], anomalies[-1], atol=1e-9)
    exact = np.tensordot(np.linalg.matrix_power(turn, 4) @ x[-1], patterns, 1)
    assert np.abs(later[3] - exact).max() < 0.12 * np.abs(x[-1]).max()
    half = model.forecast(model.forecast(anomalies[-1], np.array([1.5]))[0], np.array([2.5]))
    np.testing.assert_allclose(half[0], later[3], atol=1e-9)
    with expect(GapzooError, "months of SST for 15 EOFs"):
        LinearInverse.fit(anomalies[:20], weights)


def test_what_the_eofs_leave_over_decays_with_its_own_memory():
    g, n = np.random.default_rng(1), 4000
    x = np.zeros((n, 1, 2))
    for t in range(1, n):
        x[t] = np.array([[0.9, 0.5]]) * x[t - 1] + g.standard_normal((1, 2)) * [[3.0, 1.0]]
    np.testing.assert_allclose(lagged(x)[0], [0.9, 0.5], atol=0.04)
    model = LinearInverse.fit(x, np.ones((1, 2)), eofs=1)
    later = model.forecast(np.array([[0.0, 1.0]]), np.array([2.0]))
    assert abs(later[0, 0, 1] - 0.25) < 0.06


@pytest.mark.parametrize("kind", ["persisted", "climatology", "observed", "damped", "inverse"])
def test_every_assumption_about_the_sea(archive, world, kind):
    """At the start each is what was known then; later they part as they say."""
    start = pd.Timestamp("1980-03-01")
    archive.attributes["x"] = 1
    world.details["train"] = ["1979-01-01", "1980-12-31"]
    sea = SeaSurface(kind, world, archive, known_days=17, eofs=3)
    forcing = sea.at(start)
    known = pd.DatetimeIndex([start - pd.Timedelta(days=17)])
    truth = SeaSurface("observed", world, archive).at(start)(known)[0, 0]
    at_known, later = forcing(known)[0, 0], forcing(pd.DatetimeIndex(["1980-08-01"]))[0, 0]
    if kind == "climatology":
        assert not at_known.any() and not later.any()
        return
    np.testing.assert_allclose(at_known, truth, atol=1e-4)
    if kind == "persisted":
        np.testing.assert_array_equal(later, at_known)
    if kind == "damped":
        assert np.abs(later).max() < 0.5 * np.abs(at_known).max()
    warm = SeaSurface(kind, world, archive, known_days=17, eofs=3, offset=2.0).at(start)
    np.testing.assert_allclose(warm(known)[0, 0], truth + 2, atol=1e-4)


@pytest.mark.parametrize("lost", [0.0, 0.2], ids=["climatological", "melting"])
def test_ice_that_is_the_same_every_year_is_no_anomaly(lost):
    """What the climatology's harmonics miss does not persist; what a year has on its own does."""
    flat = flat_world()
    twice = np.zeros((1, 2, *flat.grid.shape), np.float32)
    world = dataclasses.replace(
        flat,
        forcing_channels=("sea_surface_temperature", "sea_ice_cover"),
        forcing_climatology=twice,
        forcing_std=np.ones(2),
        details={"train": ["1980-01-01", "1989-12-31"]},
    )
    times = pd.date_range("1980-01-01", "1991-12-31", freq="D")
    fields = np.repeat(twice, len(times), 0)
    fields[:, 0] = (0.1 * (times.year - 1980).to_numpy())[:, None, None]
    fields[times.month < 4, 1] = 1.0
    fields[times.year == 1991, 1] -= lost
    whole = SimpleNamespace(
        forcing_channels=world.forcing_channels,
        times=times,
        read=lambda name, rows: fields[rows],
        path=Path("ice.zarr"),
        require_single=lambda: None,
    )
    later = pd.DatetimeIndex(["1991-06-01"])
    for day in ("1991-02-28", "1991-05-01"):
        sea = SeaSurface("persisted", world, whole).at(pd.Timestamp(day))
        np.testing.assert_allclose(sea(later)[0, :, 0, 0], [1.1, -lost], atol=1e-5)
    last = times.year == 1991
    short = SimpleNamespace(**{**vars(whole), "times": times[last]})
    short.read = lambda name, rows: fields[last][rows]
    sea = SeaSurface("persisted", world, short).at(pd.Timestamp("1991-02-28"))
    np.testing.assert_allclose(sea(later)[0, :, 0, 0], [1.1, 1 - lost], atol=1e-5)


def test_monthly_anomalies_of_an_archive(archive, world):
    found = monthly_anomalies(archive, world, "1979-03-01", "1979-04-30")
    rows = archive.indices("1979-04-01", "1979-04-30")
    assert np.allclose(found[1], Reader(archive, world).forcing(rows)[:, 0].mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"starts": ["11-15"]}, ("start '11-15'", "first of a month")),
        ({"starts": ["13-01"]}, ("starts ['13-01']", "month-day")),
        ({"sst": "guess"}, ("sst 'guess'",)),
        ({"years": []}, ("a year",)),
    ],
)
def test_bad_recipes_are_refused(changes, parts):
    with expect(GapzooError, *parts):
        SeasonalRecipe(**changes)


def test_forcing_that_ends_too_early_is_refused_before_a_step(archive, forecaster, world, tmp_path):
    run, _ = seasons(archive, forecaster, tmp_path, months=4)
    sea = SeaSurface("observed", world, archive).at(pd.Timestamp("1980-11-01"))
    state = torch.zeros(2, *world.shape)
    start = Start(state, pd.Timestamp("1980-11-01"), MemberGenerator(0, 2), sea)
    with expect(GapzooError, "is not known on 1981-02-28"):
        run.run([start])


def test_the_command_writes_scores_and_a_page(tmp_path):
    archive = toy_archive(tmp_path / "toy.zarr", end="1981-12-31", segment_shards=10)
    saved(toy_prior(archive), tmp_path / "p")
    saved(toy_forecaster(archive), tmp_path / "f")
    assert checkpoint.load(tmp_path / "p").name
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"prior: ''\nforecaster: {tmp_path / 'f'}\ninitial: {archive.path}\nmembers: 2\n"
        "perturb: 0.5\nyears: [1979, 1980, 1981]\nstarts: ['05-01']\nmonths: 3\nsst: observed\n"
    )
    words = ["seasonal", str(recipe), "--output", str(tmp_path / "one")]
    assert cli.main(words) == 0
    assert cli.main([*words, "--against", str(tmp_path / "one")]) == 0
    page = (tmp_path / "one" / "report.html").read_text()
    for text in ("persistence", "Reliability", "1 May", "acc_tropics", "Nino3.4"):
        assert text in page
    assert "goes over" not in page
    two = toy_archive(tmp_path / "two.zarr", end="1981-12-31", segment_shards=7)
    assert cli.main([*words, f"truth={two.path}"]) == 2  # another recipe's folder
    other = ["seasonal", str(recipe), f"truth={two.path}", "--output", str(tmp_path / "other")]
    assert cli.main(other) == 0
    page = (tmp_path / "other" / "report.html").read_text()
    assert "two.zarr goes over to another run: 1981-05-01." in page
    far = [str(recipe), "perturb=1e4", "--output", str(tmp_path / "far")]
    assert cli.main(["seasonal", *far]) == 2  # no start was carried through
