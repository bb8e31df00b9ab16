"""Statistics against numpy on the whole data, and against closed forms."""

import shutil

import numpy as np
import pytest
from worlds import COSINE, MEAN, MEMORY, SINE, SPREAD, ToySource, toy_archive

from gapzoo.core.climatology import Climatology, harmonics
from gapzoo.data import statistics
from gapzoo.data.archive import SHARD, Archive, create, write_shard


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Two years, daily; the first year trains; runs of two shards."""
    return toy_archive(tmp_path_factory.mktemp("statistics") / "toy.zarr")


@pytest.fixture(scope="module")
def states(archive):
    return archive.read("state", np.arange(365)).astype(float)


def area_mean(archive, fields):
    return (fields * archive.grid.area_weights[:, None]).mean((-2, -1))


def test_moments_equal_numpy(archive, states):
    mean = area_mean(archive, states.mean(0))
    assert archive.array("mean") == pytest.approx(mean, rel=1e-10)
    variance = area_mean(archive, ((states - mean[:, None, None]) ** 2).mean(0))
    assert archive.array("std") == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_changes_skip_the_joints_of_runs(archive, states):
    change = np.diff(states, axis=0)
    unbroken = np.diff(archive.runs[:365]) == 0
    assert (~unbroken).sum() == 1  # after 240 days
    expected = np.sqrt(area_mean(archive, (change[unbroken] ** 2).mean(0)))
    assert archive.array("diff_std") == pytest.approx(expected, rel=1e-6)


def test_a_leap_at_a_joint_is_no_change(tmp_path):
    """A ramp of 1 a step that falls back to 0 at every joint: changes of 1 alone."""
    spec = ToySource(names=("surface_pressure",), end="1979-12-26", segment_shards=1).spec()
    create(tmp_path / "ramp.zarr", spec)
    ramp = np.ones((SHARD, 1, 4, 8)) * np.arange(SHARD)[:, None, None, None]
    for shard in range(3):
        write_shard(tmp_path / "ramp.zarr", shard, ramp, np.zeros((SHARD, 2, 4, 8)))
    found = statistics.compute(Archive(tmp_path / "ramp.zarr"), "1979", "1979")
    assert found["diff_std"] == pytest.approx([1.0], rel=1e-12)
    assert found["mean"] == pytest.approx([(SHARD - 1) / 2], rel=1e-12)
    assert found["std"] == pytest.approx([np.sqrt((SHARD**2 - 1) / 12)], rel=1e-9)


def test_climatology_equals_least_squares(archive, states):
    """numpy's own least squares in float64 on all states at once."""
    basis = harmonics(archive.times[:365], statistics.MEAN_HARMONICS)
    fit = np.linalg.lstsq(basis, states.reshape(365, -1), rcond=None)[0]
    stored = archive.array("climatology").reshape(len(basis.T), -1)
    scale = np.repeat(SPREAD, 32)
    assert (np.abs(stored - fit) / scale).max() < 3e-3  # float32 of 98000 Pa against 500 Pa
    anomaly = states - (basis @ fit).reshape(states.shape)
    basis = harmonics(archive.times[:365], statistics.VARIANCE_HARMONICS)
    fit = np.linalg.lstsq(basis, (anomaly**2).reshape(365, -1), rcond=None)[0]
    stored = archive.array("climatology_variance").reshape(len(basis.T), -1)
    assert (np.abs(stored - fit) / scale**2).max() < 3e-3


def test_an_annual_cycle_without_noise_is_recovered(tmp_path):
    archive = toy_archive(
        tmp_path / "cycle.zarr", ("1979-01-01", "1980-12-31"), noise=0.0, end="1980-12-31"
    )
    climatology = Climatology(archive.array("climatology"), archive.array("climatology_variance"))
    tilt = np.cos(np.deg2rad(archive.grid.latitude))[None, :, None] * np.ones((1, 4, 8))
    terms = climatology.mean_coefficients
    for row, known in enumerate((MEAN, COSINE, SINE)):
        error = np.abs(terms[row] - known[:, None, None] * tilt)
        assert (error / np.abs(MEAN)[:, None, None]).max() < 1e-6
    assert (np.abs(terms[3:]) / np.abs(MEAN)[:, None, None]).max() < 1e-6
    every = np.arange(0, 731, 50)
    states = archive.read("state", every)
    error = climatology.mean(archive.times[every]) - states
    assert (np.abs(error).max((0, 2, 3)) / MEAN).max() < 1e-6


def test_spread_of_the_noise_is_recovered(archive):
    """Variance and change of AR(1) noise, less what nine waves take away from a year of it.

    32 points of some 40 independent days each: a standard error of 4 % of the variance.
    """
    day = np.arange(365)
    start = np.where(day < 240, 0, 240)
    same = start[:, None] == start[None, :]  # a new run starts from rest
    shortest = np.minimum(day[:, None], day[None, :]) - start[:, None] + 1
    lag = np.abs(day[:, None] - day[None, :])
    covariance = same * MEMORY**lag * (1 - MEMORY ** (2 * shortest))
    basis = harmonics(archive.times[:365], statistics.MEAN_HARMONICS)
    left = np.eye(365) - basis @ np.linalg.pinv(basis)
    expected = np.trace(left @ covariance) / 365
    points = archive.array("climatology_variance")[0] / SPREAD[:, None, None] ** 2
    assert area_mean(archive, points) == pytest.approx(np.full(3, expected), abs=0.12)
    assert points.mean() == pytest.approx(expected, abs=0.07)
    change = np.sqrt(2 * (1 - MEMORY)) * SPREAD
    assert archive.array("diff_std") == pytest.approx(change, rel=0.04)


def test_a_spread_that_swings_with_the_season_is_recovered(tmp_path):
    """Anomalies +s(d), -s(d) in turn, s^2 = 4 + 3 cos(w d): orthogonal to every slow wave."""
    source = ToySource(names=("temperature@0.95",), end="1980-12-31", segment_shards=9)
    spec = source.spec()
    create(tmp_path / "swing.zarr", spec)
    season = harmonics(spec.times, 1)[:, 1]
    swing = np.sqrt(4 + 3 * season) * (-1.0) ** np.arange(len(season))
    for shard in range(spec.shards):
        part = swing[shard * SHARD : (shard + 1) * SHARD, None, None, None]
        forcing = np.zeros((len(part), 2, 4, 8))
        write_shard(tmp_path / "swing.zarr", shard, part * np.ones((1, 1, 4, 8)), forcing)
    found = statistics.compute(Archive(tmp_path / "swing.zarr"), "1979", "1980")
    known = np.array([4, 3, 0, 0, 0])[:, None]
    assert np.abs(found["climatology_variance"].reshape(5, -1) - known).max() < 0.02
    assert np.abs(found["climatology"]).max() < 0.02


def test_forcing_climatology_equals_least_squares(archive):
    positions = np.arange(0, 365, 4)
    fields = archive.read("forcing", positions).astype(float)
    basis = harmonics(archive.times[positions], statistics.MEAN_HARMONICS)
    fit = np.linalg.lstsq(basis, fields.reshape(len(positions), -1), rcond=None)[0]
    stored = archive.array("forcing_climatology").reshape(len(fit), -1)
    assert np.abs(stored - fit).max() < 1e-3
    left = (fields.reshape(len(positions), -1) - basis @ fit).reshape(fields.shape)
    spread = np.sqrt((left**2).mean((0, 2, 3)))
    assert archive.array("forcing_std") == pytest.approx(spread, rel=1e-4, abs=1e-6)


def test_the_size_of_the_blocks_changes_nothing_but_rounding(archive, monkeypatch):
    whole = statistics.compute(archive, "1979", "1979")
    monkeypatch.setattr(statistics, "SHARD", 37)
    parts = statistics.compute(archive, "1979", "1979")
    scale = {"climatology": MEAN, "climatology_variance": SPREAD**2}
    for name, value in whole.items():
        size = scale.get(name, np.ones(1))[:, None, None]
        difference = np.abs(parts[name] - value) if value.ndim == 4 else parts[name] - value
        limit = 1e-5 if name in scale else 1e-3
        assert (np.abs(difference) / (size if value.ndim == 4 else 1)).max() < limit, name


def test_progress_counts_both_passes(archive):
    told = []
    statistics.compute(archive, "1979-01-01", "1979-06-01", told.append)
    assert sum(told) == 2 * 152


def test_states_outside_the_training_period_never_enter(archive, tmp_path):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(archive.path, copy)
    last = len(archive.times) % SHARD
    write_shard(copy, 6, np.full((last, 3, 4, 8), 1e6), np.full((last, 2, 4, 8), 1e6))
    again = statistics.compute(Archive(copy), "1979-01-01", "1979-12-31")
    for name, value in again.items():
        assert np.array_equal(archive.array(name), value), name
