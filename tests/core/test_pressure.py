"""Known answers on sigma levels; a real ERA5 state; selection on pressure levels."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from gapzoo.core import Channel, Channels, GapzooError, Grid
from gapzoo.core.climatology import Climatology
from gapzoo.core.pressure import (
    GAS_CONSTANT,
    GRAVITY,
    HEADLINE,
    LAPSE,
    geopotential_on_sigma,
    headline,
    hydrostatic,
    to_pressure,
)
from gapzoo.core.world import World

SIGMA = (0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95)
PROFILES = ("u_component_of_wind", "temperature", "specific_humidity")
ERA5 = Path(__file__).parents[2].parent / "shared" / "data" / "era5_tl31_19590102T00.nc"
KAPPA = GAS_CONSTANT * LAPSE / GRAVITY


def world_of(channels: Channels, ground: np.ndarray | None) -> World:
    """A world of one row of columns a latitude; ``ground`` is (H, W) surface geopotential."""
    shape = (2, 4) if ground is None else ground.shape
    grid = Grid(tuple(np.linspace(-45, 45, shape[0])), tuple(np.arange(shape[1]) * 360 / shape[1]))
    zeros = np.zeros((1, len(channels), *shape), np.float32)
    static = {} if ground is None else {"geopotential_at_surface": ground}
    return World(
        name="columns",
        grid=grid,
        channels=channels,
        hours=6,
        climatology=Climatology(zeros, zeros),
        diff_std=np.ones(len(channels)),
        forcing_channels=(),
        forcing_climatology=np.zeros((1, 0, *shape)),
        forcing_std=np.ones(0),
        static=np.array(list(static.values())),
        static_channels=tuple(static),
    )


def sigma_channels(sigma=SIGMA) -> Channels:
    profile = [Channel(name, float(s)) for name in PROFILES for s in sigma]
    return Channels([*profile, Channel("surface_pressure")], "sigma")


def columns(temperature, surface_pressure, height, humidity=0.0, sigma=SIGMA):
    """State (C, 2, 4) and world, with ``temperature(p)`` above ground at height (m)."""
    surface = np.broadcast_to(np.asarray(surface_pressure, float), (2, 4))
    pressure = np.asarray(sigma)[:, None, None] * surface
    wind, vapour = 10 + np.log(pressure), np.full_like(pressure, humidity)
    state = np.concatenate([wind, temperature(pressure), vapour, surface[None]])
    ground = np.broadcast_to(np.asarray(height, float) * GRAVITY, (2, 4))
    return state, world_of(sigma_channels(sigma), ground)


def standard_temperature(pressure):
    return 288.15 * (pressure / 101325.0) ** KAPPA


def standard_pressure(height):
    return 101325.0 * (1 - LAPSE * np.asarray(height) / 288.15) ** (1 / KAPPA)


def standard_geopotential(pressure):
    return GRAVITY / LAPSE * (288.15 - standard_temperature(pressure))


HEIGHTS = np.array([[0.0, 10.0, 100.0, 500.0], [1000.0, 2000.0, 3000.0, 4500.0]])


def test_isothermal_atmosphere_has_its_closed_form():
    """phi = phi_s + R T ln(p_s / p), T virtual, exactly at every level."""
    state, world = columns(lambda p: np.full_like(p, 250.0), 98000.0, 300.0, humidity=0.004)
    virtual = 250.0 * (1 + 0.608 * 0.004)
    expected = 300 * GRAVITY + GAS_CONSTANT * virtual * np.log(1 / np.array(SIGMA))
    levels = geopotential_on_sigma(state, world)
    np.testing.assert_allclose(levels, np.broadcast_to(expected[:, None, None], levels.shape))
    wanted = ["geopotential@500", "geopotential@960", "geopotential@10", "temperature@500"]
    found = to_pressure(state, world, wanted)
    for field, pressure in zip(found, (500, 960, 10), strict=False):
        exact = 300 * GRAVITY + GAS_CONSTANT * virtual * np.log(980 / pressure)
        np.testing.assert_allclose(field, exact, rtol=1e-12)
    np.testing.assert_allclose(found[3], 250.0, rtol=1e-12)


def test_standard_atmosphere_above_the_ground():
    """Second-order in the depth of the layers: 0.8 m at 500 hPa with 8 levels, 9 mm with 64."""
    wanted = ["geopotential@850", "geopotential@500", "geopotential@250", "temperature@500"]
    exact = [standard_geopotential(100 * p) for p in (850, 500, 250)]
    errors = []
    for sigma in (SIGMA, np.linspace(1 / 128, 1 - 1 / 128, 64)):
        state, world = columns(standard_temperature, 101325.0, 0.0, sigma=sigma)
        found = to_pressure(state, world, wanted)
        errors.append([np.abs(f - e).max() / GRAVITY for f, e in zip(found, exact, strict=False)])
        errors[-1].append(np.abs(found[3] - standard_temperature(50000.0)).max())
    assert np.all(np.array(errors[0]) < [0.05, 1.0, 5.0, 0.1]), errors
    assert np.all(np.array(errors[1]) < [0.002, 0.01, 0.05, 0.001]), errors


def test_standard_atmosphere_below_the_ground_of_mountains():
    """Temperature and geopotential go on by the standard lapse rate: both exact."""
    state, world = columns(standard_temperature, standard_pressure(HEIGHTS), HEIGHTS)
    found = to_pressure(state, world, ["geopotential@1010", "temperature@1010"])
    np.testing.assert_allclose(found[0], standard_geopotential(101000.0), atol=0.3)
    np.testing.assert_allclose(found[1], standard_temperature(101000.0), rtol=1e-12)


def test_sea_level_pressure_of_a_mountain_in_the_standard_atmosphere():
    state, world = columns(standard_temperature, standard_pressure(HEIGHTS), HEIGHTS)
    found = to_pressure(state, world, ["mean_sea_level_pressure"])
    np.testing.assert_allclose(found, 101325.0, rtol=1e-9)


@pytest.mark.parametrize("surface_temperature", [230.0, 275.0, 305.0])
def test_sea_level_pressure_at_zero_height_is_the_surface_pressure(surface_temperature):
    pressure = np.array([[98000.0, 99000, 100000, 101000], [102000, 103000, 104000, 97000]])
    state, world = columns(lambda p: surface_temperature * (p / pressure) ** KAPPA, pressure, 0.0)
    np.testing.assert_array_equal(
        to_pressure(state, world, ["mean_sea_level_pressure"])[0], pressure
    )


def test_hot_and_cold_ground_is_tempered():
    """Over a 1000 m plateau at 900 hPa: T_* 300 K is taken as 295.25 K without a lapse rate."""
    for ground, star, lapse in ((300.0, 295.25, 0.0), (240.0, 247.5, LAPSE)):

        def profile(pressure, ground=ground):
            return ground * (pressure / 90000.0) ** KAPPA

        state, world = columns(profile, 90000.0, 1000.0)
        x = lapse * 1000.0 / star
        series = 1 - x / 2 + x**2 / 3 - x**3 / 4
        exact = 90000.0 * np.exp(1000 * GRAVITY / (GAS_CONSTANT * star) * series)
        found = to_pressure(state, world, ["mean_sea_level_pressure"])
        np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_geopotential_and_sea_level_pressure_agree():
    """phi at the sea level pressure is zero, over warm, cold and middling mountains."""
    for ground in (305.0, 285.0, 235.0):
        state, world = columns(lambda p, g=ground: g * (p / 90000.0) ** KAPPA, 90000.0, 900.0)
        level = float(to_pressure(state, world, ["mean_sea_level_pressure"])[0, 0, 0]) / 100
        sea = to_pressure(state, world, [f"geopotential@{level:.10g}"])
        np.testing.assert_allclose(sea, 0.0, atol=1e-2)


def test_geopotential_is_continuous_at_the_ground_and_at_levels():
    state, world = columns(lambda p: 280.0 * (p / 1e5) ** 0.25, 97000.0, 400.0)
    for pressure in (970.0, 97.0 * 9.5, 97.0 * 0.25):
        near = [f"geopotential@{pressure * factor:.9g}" for factor in (1 - 1e-6, 1 + 1e-6)]
        above, below = to_pressure(state, world, near)
        slope = GAS_CONSTANT * 300 * 2e-6
        assert np.all((above > below) & (above - below < slope))


def test_linear_in_log_pressure_and_constant_beyond():
    """The wind is 10 + ln p: exact between levels, constant below 0.95 and above 0.025."""
    state, world = columns(standard_temperature, 100000.0, 0.0)
    labels = [f"u_component_of_wind@{p}" for p in (850, 300, 999, 1010, 1)]
    found = to_pressure(state, world, labels)[:, 0, 0]
    expected = 10 + np.log([85000.0, 30000.0, 95000.0, 95000.0, 2500.0])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_members_times_and_precision_are_kept():
    state, world = columns(standard_temperature, standard_pressure(HEIGHTS), HEIGHTS)
    fields, names = headline(state, world)
    assert names == HEADLINE and fields.shape == (5, 2, 4) and fields.dtype == np.float64
    many = torch.from_numpy(state).float().expand(3, 2, *state.shape)
    found, _ = headline(many, world)
    assert found.dtype == torch.float32 and found.shape == (3, 2, 5, 2, 4)
    tolerance = torch.tensor([0.05, 1e-4, 1e-5, 1e-9, 0.1])[:, None, None]
    assert torch.all((found[2, 1] - torch.from_numpy(fields)).abs() <= tolerance)


def test_pressure_levels_are_selected():
    labels = [*HEADLINE[::-1], "geopotential@850"]
    world = world_of(Channels(labels, "pressure"), None)
    state = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    fields, names = headline(state, world)
    np.testing.assert_array_equal(fields, state[[labels.index(n) for n in names]])
    with pytest.raises(GapzooError, match="geopotential@300"):
        to_pressure(state, world, ["geopotential@300"])


@pytest.mark.parametrize(
    ("wanted", "named"),
    [("vorticity@500", "vorticity"), ("2m_temperature", "2m_temperature"), ("geopotential", "hPa")],
)
def test_what_cannot_be_made_is_named(wanted, named):
    state, world = columns(standard_temperature, 1e5, 0.0)
    with pytest.raises(GapzooError, match=named):
        to_pressure(state, world, [wanted])


def test_world_without_orography_and_states_of_other_shape_are_refused():
    state, _ = columns(standard_temperature, 1e5, 0.0)
    with pytest.raises(GapzooError, match="geopotential_at_surface"):
        headline(state, world_of(sigma_channels(), None))
    with pytest.raises(GapzooError, match="state of shape"):
        headline(state[1:], columns(standard_temperature, 1e5, 0.0)[1])


def era5_over_the_open_pacific() -> xr.Dataset:
    """Where no level lies below the ground: (level, column) of 60S-60N, 175E-235E."""
    if not ERA5.exists():
        pytest.skip(f"needs {ERA5.name} in ../shared/data")
    with xr.open_dataset(ERA5) as data:
        box = data.sel(longitude=slice(175, 235)).sel(latitude=slice(-60, 60)).load()
    return box.stack(column=["latitude", "longitude"]).transpose("level", ...)


def rms(error: np.ndarray) -> np.ndarray:
    return np.sqrt((error**2).reshape(len(error), -1).mean(1))


def test_hydrostatics_reproduce_era5_geopotential():
    """From 850 hPa up, T and q give ERA5's own geopotential: to 0.4 m rms at 500 hPa."""
    data = era5_over_the_open_pacific().sel(level=slice(100, 850))
    virtual = data.temperature * (1 + 0.608 * data.specific_humidity)
    log_pressure = torch.from_numpy(np.log(data.level.values.astype(float)))
    columns = torch.from_numpy(virtual.values).double()[..., None]
    found = hydrostatic(columns, log_pressure)[..., 0].numpy()
    truth = (data.geopotential - data.geopotential.sel(level=850)).values
    error = dict(zip(data.level.values.tolist(), rms(found - truth) / GRAVITY, strict=True))
    assert error[500] < 0.45 and error[250] < 2 and error[100] < 3, error


@pytest.mark.parametrize(
    ("sigma", "bounds"),
    [
        (SIGMA, (5.0, 0.25, 0.3, 2e-4)),
        (np.linspace(1 / 64, 1 - 1 / 64, 32), (1.5, 0.25, 0.15, 1e-4)),
    ],
)
def test_era5_on_sigma_levels_and_back(sigma, bounds):
    """Real columns put on sigma levels give Z500 (m), T850, U850, Q700 to the stated rms."""
    data = era5_over_the_open_pacific()
    log_p = np.log(data.level.values * 100.0)
    surface = np.array([_sea_level(c, log_p) for c in data.geopotential.values.T])
    state = [
        [
            np.interp(np.log(sigma) + s, log_p, c)
            for s, c in zip(surface, data[n].values.T, strict=True)
        ]
        for n in PROFILES
    ]
    state = np.concatenate([*(np.array(p).T for p in state), np.exp(surface)[None]])
    shape = (2, state.shape[1] // 2)
    world = world_of(sigma_channels(sigma), np.zeros(shape))
    fields, _ = headline(state.reshape(-1, *shape), world)
    truth = [data[c.variable].sel(level=c.level).values for c in map(Channel.parse, HEADLINE[:4])]
    error = rms(fields[:4].reshape(4, -1) - np.stack(truth)) / [GRAVITY, 1, 1, 1]
    assert np.all(error < bounds), error


def _sea_level(geopotential: np.ndarray, log_p: np.ndarray) -> float:
    """ln p at zero height, from a column's geopotential (with the lowest layer's slope below)."""
    if geopotential[-1] < 0:
        return float(np.interp(0, -geopotential, log_p))
    slope = np.diff(log_p)[-1] / np.diff(geopotential)[-1]
    return float(log_p[-1] - geopotential[-1] * slope)
