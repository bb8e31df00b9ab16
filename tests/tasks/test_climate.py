"""gapzoo simulate: what a record holds, restarts to the bit, known scores, drift and stops."""

import dataclasses
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from models import saved, toy_forecaster, toy_prior
from worlds import expect, toy_archive

from gapzoo import checkpoint, cli
from gapzoo.core import GapzooError
from gapzoo.data.module import Reader, world_of
from gapzoo.tasks.climate import ClimateRecipe, Simulation, months_of, refer
from gapzoo.tasks.climate_scores import HEMISPHERES, Record, area_mean, compare, trend
from gapzoo.tasks.initial import Drawn, Truth
from gapzoo.tasks.record import Recorder
from gapzoo.tasks.rollout import Unphysical
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.sea import SeaSurface
from gapzoo.tasks.settings import RolloutSettings, rollout_of

START = pd.Timestamp("1979-01-01")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def models(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved(toy_prior(archive), folder / "p")
    saved(toy_forecaster(archive), folder / "f")
    return folder


@pytest.fixture(scope="module")
def recorded(archive, tmp_path_factory):
    """Both years of the archive, recorded."""
    world = world_of(archive)
    recorder = Recorder(tmp_path_factory.mktemp("reference"), world, START, 24, 1, 24)
    refer(recorder, archive)
    return Record(recorder.folder, world)


def simulation(models, archive, folder, members=2, months=3, **changes):
    wanted = RolloutSettings(
        **{"members": members, "sampling": {"steps": 1}, "prior": "", "seed": 3} | changes
    )
    prior, network = (checkpoint.load(models / n) for n in "pf")
    rollout = rollout_of(wanted, prior if wanted.prior else None, network, prior.world)
    recorder = Recorder(folder, rollout.world, START, months, members, 24, ["surface_pressure"], 2)
    initial = Truth(archive, rollout.world, 0.3)
    sea = SeaSurface("observed", rollout.world, archive)
    return Simulation(rollout, recorder, initial, sea, wanted)


def same(first, second):
    """All of two records, to the bit."""
    for name in ("monthly", "daily", "series"):
        pair = [
            xr.open_zarr(f / f"{name}.zarr", consolidated=False).load() for f in (first, second)
        ]
        xr.testing.assert_identical(*pair)
    with np.load(first / "record.npz") as a, np.load(second / "record.npz") as b:
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Killed(Exception):
    """In the place of a signal."""


@pytest.mark.parametrize("changes", [{}, {"prior": "p"}], ids=["alone", "prior"])
def test_a_run_killed_within_a_month_goes_on_to_the_bit(models, archive, tmp_path, changes):
    simulation(models, archive, tmp_path / "whole", **changes).run()
    broken = simulation(models, archive, tmp_path / "broken", **changes)
    add, count = broken.recorder.add, []

    def struck(time, physical, state):
        count.append(time)
        if len(count) == 45:  # in the middle of February
            raise Killed
        add(time, physical, state)

    object.__setattr__(broken.recorder, "add", struck)
    with pytest.raises(Killed):
        broken.run()
    again = simulation(models, archive, tmp_path / "broken", **changes)
    assert again.recorder.done == 1 and again.recorder.time == pd.Timestamp("1979-01-31")
    done = []
    again.run(done.append)
    assert sum(done) == 3 and again.recorder.complete
    same(tmp_path / "whole", tmp_path / "broken")
    simulation(models, archive, tmp_path / "broken", **changes).run()  # nothing is left to do


def test_a_record_is_what_direct_averages_give(archive, recorded):
    world, times = recorded.world, archive.times[1:]
    physical = Reader(archive, world).physical(np.arange(1, len(archive.times)))
    fields = recorded.diagnostics(physical).double().numpy()
    v = recorded.diagnostics.index("surface_pressure")
    assert list(recorded.months[[0, -1]]) == [START, pd.Timestamp("1980-12-01")]
    may = (times.year == 1980) & (times.month == 5)
    monthly = recorded.monthly("surface_pressure")
    np.testing.assert_allclose(monthly[16, 0], fields[may, v].mean(0), rtol=1e-6)
    stamps, rows, names = recorded.series
    assert stamps.equals(times.as_unit("us"))
    mean = rows[:, 0, names.index("surface_pressure")]
    np.testing.assert_allclose(mean, area_mean(world, fields[:, v]), rtol=1e-12)
    every_may = fields[times.month == 5, v]
    noon = times + pd.Timedelta(hours=12)
    climate = recorded.diagnostics(world.mean(noon).double()).numpy()[times.month == 5, v]
    np.testing.assert_allclose(recorded.mean[4, v], (every_may - climate).mean(0), atol=0.02)
    low = recorded.diagnostics.index("lowest_level_temperature")  # of 4 K a month in spring
    warm = fields[times.month == 5, low].mean(0)
    np.testing.assert_allclose(recorded.cycle[4, low], warm, atol=0.8)
    variance = (every_may - climate).var(0)
    found = (recorded.sums["square"][4, v] / 62) - recorded.mean[4, v] ** 2
    np.testing.assert_allclose(found, variance, rtol=1e-3)
    high = [fields[times.year == y, v].max(0) for y in (1979, 1980)]
    np.testing.assert_allclose(recorded.extremes()[0][v], np.mean(high, 0))
    assert abs(recorded.persistence[v].mean() - 0.8) < 0.05  # the toy's memory of a day


def test_a_record_against_itself_is_perfect(recorded):
    scores = compare(recorded, recorded)
    one = scores["surface_pressure"]
    assert one["bias"] == one["annual_cycle_error"] == one["high_bias"] == 0
    assert one["variance_ratio"] == one["monthly_variance_ratio"] == 1
    assert abs(scores["all"]["northern_annular_pattern"] - 1) < 1e-6


def test_a_single_year_has_no_monthly_anomalies(archive, recorded, tmp_path):
    """What needs each calendar month twice is NaN, and no warning; the rest is there."""
    world = recorded.world
    recorder = Recorder(tmp_path / "year", world, START, 12, 1, 24)
    refer(recorder, archive)
    year, sea = Record(recorder.folder, world), SeaSurface("observed", world, archive).at(START)
    assert (year.repeats, recorded.repeats) == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        scores = [compare(*pair, sea) for pair in ((year, recorded), (recorded, year))]
    absent = {"monthly_variance_ratio", "nino34_pattern", "nino34_amplitude"}
    for found in scores:
        one, everywhere = found["surface_pressure"], found["all"]
        assert {n for n, v in one.items() if np.isnan(v)} == absent
        annular = [f"{h}_annular_{n}" for h in HEMISPHERES for n in ("pattern", "variance_ratio")]
        assert all(np.isnan(everywhere[name]) for name in annular)


def test_a_shifted_and_stretched_world_scores_as_it_was_changed(archive, recorded, tmp_path):
    """Twice the anomalies and 3 K more: known bias, ratio 4, the same persistence."""
    world, reader = recorded.world, Reader(archive, recorded.world)
    recorder = Recorder(tmp_path / "changed", world, START, 24, 1, 24)
    t = world.channels.of("temperature")
    for row in range(1, len(archive.times)):
        state = 2 * reader.state(np.array([row]))
        physical = world.denormalise(state, archive.times[[row]])
        physical[:, t] += 3.0
        recorder.add(archive.times[row], physical, state)
    scores = compare(Record(tmp_path / "changed", world), recorded)
    low = scores["lowest_level_temperature"]
    assert abs(low["bias"] - 3) < 0.3 and abs(low["variance_ratio"] - 4) < 0.2
    assert abs(low["persistence_bias"]) < 0.02 and low["high_bias"] > 3
    assert abs(low["monthly_variance_ratio"] - 4) < 0.2


def test_a_record_of_an_older_version_is_refused(archive, recorded, tmp_path):
    """It lacks the sums that a bias is made of."""
    with np.load(recorded.folder / "record.npz") as file:
        np.savez(tmp_path / "record.npz", **{n: file[n] for n in file.files if n != "climate"})
    with expect(GapzooError, "older version", "begin again"):
        Recorder(tmp_path, recorded.world, START, 24, 1, 24)
    with expect(GapzooError, "older version", "simulate again"):
        _ = Record(tmp_path, recorded.world).sums


def test_trends_and_their_errors():
    """White noise about a slope: within three standard errors; a red series has a wider error."""
    g = np.random.default_rng(0)
    noise = g.standard_normal(400)
    slope, error = trend(0.01 * np.arange(400) + noise)
    assert abs(slope - 0.01) < 3 * error
    assert abs(error / (noise.std() / np.sqrt(400**3 / 12)) - 1) < 0.2
    red = np.zeros(400)
    for n in range(1, 400):
        red[n] = 0.9 * red[n - 1] + noise[n]
    assert trend(red)[1] > 3 * error * red.std()
    assert np.isnan(trend(np.zeros(2))[0])


def test_an_unphysical_state_keeps_the_months_before_it(models, archive, tmp_path):
    run = simulation(models, archive, tmp_path)
    limits = iter([50.0] * 40 + [1e-3] * 400)
    rollout = run.rollout
    frames = rollout.frames

    def tightening(starts):
        for frame in frames(starts):
            if next(limits) < 1:
                raise Unphysical("at 1979-02-10 member 0 left the climate", frame[0].time)
            yield frame

    object.__setattr__(rollout, "frames", tightening)
    with expect(Unphysical, "left the climate"):
        run.run()
    assert Record(tmp_path, rollout.world).months.equals(pd.DatetimeIndex([START]).as_unit("us"))


def test_dates_far_beyond_the_calendar_of_nanoseconds(archive, tmp_path):
    """A millennium's last month: what is written is read at the right time."""
    world = world_of(archive)
    start = pd.Timestamp("2979-11-01")
    recorder = Recorder(tmp_path, world, start, 2, 1, 24)
    state = torch.zeros(1, *world.shape)
    for day in range(1, 61):
        time = start + pd.Timedelta(days=day)
        recorder.add(time, world.denormalise(state, pd.DatetimeIndex([time])), state)
    record = Record(tmp_path, world)
    assert recorder.complete and list(record.months.year) == [2979, 2979]
    assert record.series[0][-1] == pd.Timestamp("2979-12-31")


def test_bad_recipes_and_periods_are_refused(archive, models, tmp_path):
    for changes, parts in (
        ({"sst": "persisted"}, ("sst 'persisted'", "observed")),
        ({"years": 0}, ("a month at least",)),
        ({"prior": ""}, ("give 'initial'",)),
        ({"reference_period": ["1979-01-01"]}, ("first and a last day",)),
    ):
        with expect(GapzooError, *parts):
            ClimateRecipe(**changes)
    with expect(GapzooError, "no whole months"):
        months_of(["1979-01-05", "1979-12-31"])
    assert months_of(["1979-01-01", "1980-02-29"]) == (START, 14)
    late = simulation(models, archive, tmp_path / "late", months=30)
    with expect(GapzooError, "is not known on 1981"):
        late.run()
    with expect(GapzooError, "it must begin with a month"):
        Recorder(tmp_path / "x", world_of(archive), pd.Timestamp("1979-01-02"), 1, 1, 24)
    with expect(GapzooError, "no daily field 'rain'"):
        Recorder(tmp_path / "y", world_of(archive), START, 1, 1, 24, ["rain"], 1)


def test_the_command_runs_goes_on_and_writes_a_page(models, archive, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"prior: {models / 'p'}\nforecaster: {models / 'f'}\nmembers: 1\nyears: 0.25\n"
        f"sampling: {{steps: 1}}\nsst: observed\nreference: {archive.path}\n"
        "reference_period: ['1979-01-01', '1980-12-31']\nguard: 30\n"
    )
    words = ["simulate", str(recipe), "--output", str(tmp_path / "runs" / "out")]
    assert cli.main(words) == 0
    page = (tmp_path / "runs" / "out" / "report.html").read_text()
    for words_in in ("Against the reference", "Annular modes", "Response to Nino3.4"):
        assert words_in in page
    shutil.rmtree(tmp_path / "runs" / "out")
    assert cli.main(words) == 0  # the reference's record is taken again


def test_drawn_and_guarded_settings_reach_the_rollout(models, monkeypatch):
    prior, network = (checkpoint.load(models / n) for n in "pf")
    wanted = RolloutSettings(prior="p", guard=9.0, dry_mass=False, inflation=2.0)
    rollout = rollout_of(wanted, prior, network, prior.world)
    assert rollout.guard.limit == 9.0 and rollout.observe is None
    own, usual = network.error(24).eigenvalues, dataclasses.replace(wanted, inflation=None)
    assert torch.allclose(rollout.error.eigenvalues, 2 * own)
    assert torch.equal(rollout_of(usual, prior, network, prior.world).error.eigenvalues, own)
    kind = type(network.forecaster_in(prior.world))
    monkeypatch.setattr(kind, "stochastic", True)  # a draw's error holds what is unknown twice
    assert torch.equal(rollout_of(usual, prior, network, prior.world).error.eigenvalues, own / 2)
    with expect(GapzooError, "'memory' needs a prior with a climatological covariance"):
        rollout_of(dataclasses.replace(wanted, memory=50.0), prior, network, prior.world)
    with expect(GapzooError, "'merge' needs a prior with a climatological covariance"):
        rollout_of(dataclasses.replace(wanted, merge=0.1), prior, network, prior.world)
    with expect(GapzooError, "errors of forecaster 'persistence' are not known"):
        rollout_of(dataclasses.replace(wanted, forecaster="persistence"), prior, None, prior.world)
    assert Drawn(prior.prior, prior.world, Sampling(steps=2)).world is prior.world
