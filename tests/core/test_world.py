"""The world: normalisation undoes itself and gives unit variance; layout of the conditioning."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import COSINE, MEAN, SPREAD, climate, expect, flat_world, grid_of, toy_archive

from gapzoo.core import GapzooError
from gapzoo.core.world import POINT_FLOOR
from gapzoo.data.module import Reader, world_of

TIMES = pd.date_range("1980-02-28", periods=5, freq="18h")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "toy.zarr"
    return toy_archive(path, ("1979-01-01", "1980-12-31"))


@pytest.fixture(scope="module")
def world(archive):
    return world_of(archive)


def test_denormalising_undoes_normalising(world):
    """To float32's rounding of the largest value, in K and in Pa."""
    states = climate(TIMES, world.grid) + SPREAD[:, None, None]
    states = torch.from_numpy(states).float()
    back = world.denormalise(world.normalise(states, TIMES), TIMES)
    assert ((back - states).abs().amax((0, 2, 3)) / torch.tensor(MEAN)).max() < 3e-7


def test_members_are_normalised_as_single_states(world):
    states = torch.from_numpy(climate(TIMES, world.grid)).float()
    ensemble = torch.stack([states, states + 1, states - 2], 1)
    together = world.normalise(ensemble, TIMES)
    for member in range(3):
        assert torch.equal(together[:, member], world.normalise(ensemble[:, member], TIMES))
    assert torch.equal(world.denormalise(together, TIMES)[:, 1],
                       world.denormalise(together[:, 1], TIMES))  # fmt: skip


def test_normalised_states_have_no_mean_and_unit_variance_everywhere(archive, world):
    """Of the fitted years themselves, at every point: exactly what the fit minimises."""
    z = Reader(archive, world).state(np.arange(len(archive.times))).double()
    assert z.mean(0).abs().max() < 1e-3  # float32 sums over two years
    harmonic = z.square().mean(0) - 1  # the annual wave of the variance takes part of it
    assert harmonic.abs().max() < 0.02


def test_spread_is_the_root_of_the_area_mean_variance(world):
    variance = world.climatology.variance_coefficients[0].astype(float)
    weights = world.grid.area_weights[:, None] / 32
    assert world.spread == pytest.approx(np.sqrt((variance * weights).sum((1, 2))), rel=1e-6)


def test_a_point_that_hardly_varies_is_not_blown_up():
    world = flat_world(height=2, width=4)
    world.climatology.variance_coefficients[0, 0, 0, 0] = 0.0
    world.climatology.variance_coefficients[0, 0, 0, 1] = -1.0  # what a fit may give
    assert world.spread[0] == pytest.approx(np.sqrt(6 / 8))
    assert world.std[0, 0, :2].tolist() == pytest.approx([POINT_FLOOR * np.sqrt(6 / 8)] * 2)


def test_conditioning_channel_by_channel(world):
    times = pd.DatetimeIndex(["1980-01-01", "1981-04-02 07:00"])
    anomaly = np.zeros((2, 2, 4, 8))
    anomaly[1, 0, 2, 3] = 4 * world.forcing_std[0]
    cond = world.condition(times, anomaly)
    assert cond.shape == (2, world.cond_channels, 4, 8) and cond.dtype == torch.float32
    assert cond[:, 0].unique().tolist() == [1.0]
    assert cond[0, 1].unique().tolist() == [1.0] and cond[0, 2].unique().tolist() == [0.0]
    quarter = 2 * np.pi * 91 / 365.25
    assert cond[1, 1:3, 0, 0].tolist() == pytest.approx([np.cos(quarter), np.sin(quarter)])
    assert cond[1, 3, 2, 3] == pytest.approx(2.0) and cond[:, 3:5].count_nonzero() == 1
    height = np.arange(32).reshape(4, 8) * 981 / 9.81 / 1500
    assert cond[0, 5].numpy() == pytest.approx(height, rel=1e-6)
    assert torch.equal(cond[0, 6].flatten().nonzero().flatten(), torch.arange(0, 32, 3))
    sine = np.sin(np.deg2rad(world.grid.latitude))
    assert cond[1, 7].numpy() == pytest.approx(sine[:, None] * np.ones(8), rel=1e-6)


def test_static_fields_are_alike_at_all_times(world):
    cond = world.condition(TIMES[:1])
    static = cond[:, 5:]
    assert static.shape[1] == 3
    assert torch.equal(static, world.condition(TIMES[3:4])[:, 5:])
    assert cond[:, 3:5].count_nonzero() == 0, "no anomaly given is the climatology"


def test_forcing_anomalies_have_no_mean_and_the_stored_spread(archive, world):
    every = np.arange(0, len(archive.times), 4)
    anomaly = Reader(archive, world).forcing(every)
    assert np.abs(anomaly.mean(0)).max() < 1e-3
    assert anomaly.std((0, 2, 3)) == pytest.approx(world.forcing_std, rel=1e-3, abs=1e-6)


def test_wrong_shapes_are_refused(world):
    with expect(GapzooError, "state of shape (2, 4, 8)", "toy", "(3, 4, 8)"):
        world.normalise(torch.zeros(5, 2, 4, 8), TIMES)
    with expect(GapzooError, "state of shape (3, 8, 4)"):
        world.denormalise(torch.zeros(5, 3, 8, 4), TIMES)
    with expect(GapzooError, "forcing of shape (5, 1, 4, 8)", "sea_ice_cover"):
        world.condition(TIMES, np.zeros((5, 1, 4, 8)))


def test_a_world_without_static_fields_conditions_on_latitude_alone():
    world = dataclasses.replace(flat_world(), grid=grid_of(2, 8))
    cond = world.condition(TIMES[:1])
    assert cond[0, 4:6].count_nonzero() == 0
    assert cond[0, 6, :, 0].tolist() == pytest.approx([-np.sqrt(0.5), np.sqrt(0.5)])


def test_the_annual_cycle_is_gone_from_normalised_states(archive, world):
    """The toy's seasonal wave of 8 K in 4 K of noise: nothing of it is left."""
    z = Reader(archive, world).state(np.arange(len(archive.times))).numpy()
    day = archive.times.dayofyear.to_numpy() - 1
    wave = np.cos(2 * np.pi * day / 365.25)
    left = 2 * (z * wave[:, None, None, None]).mean(0)
    assert np.abs(COSINE[1] / SPREAD[1]) == 2 and np.abs(left[1]).max() < 2e-3
