"""Pressure levels over sigma levels, and stations, against outside formulas."""

import numpy as np
import pandas as pd
import pytest
import torch

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.climatology import Climatology
from gapzoo.core.pressure import to_pressure
from gapzoo.core.world import World
from gapzoo.data.observations import Observations, build_operator, superob
from gapzoo.data.observations.profiles import OnPressure, operators_for

GRID = Grid(np.arange(12) * 15 - 82.5, np.arange(24) * 15.0)
SIGMA = (0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95)
NAMES = ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
CHANNELS = Channels([*(f"{n}@{s}" for n in NAMES for s in SIGMA), "surface_pressure"], "sigma")


def state(seed: int = 0) -> torch.Tensor:
    """(33, 12, 24) a plausible atmosphere with every grid point different."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(33, 12, 24, generator=g, dtype=torch.float64)
    x[16:24] += torch.linspace(210, 285, 8)[:, None, None]
    x[24:32] = 0.005
    x[32] = 95000 + 3000 * x[32]
    return x


def world() -> World:
    zeros = np.zeros((1, 33, 12, 24), np.float32)
    return World(
        name="columns", grid=GRID, channels=CHANNELS, hours=6,
        climatology=Climatology(zeros, zeros), diff_std=np.ones(33), forcing_channels=(),
        forcing_climatology=np.zeros((1, 0, 12, 24)), forcing_std=np.ones(0),
        static=np.zeros((1, 12, 24)), static_channels=("geopotential_at_surface",),
    )  # fmt: skip


def places(count: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    variable = rng.choice(NAMES, count)
    pressure = np.exp(rng.uniform(np.log(15.0), np.log(1040.0), count))
    return rng.uniform(-80, 80, count), rng.uniform(0, 360, count), variable, pressure


def test_at_grid_points_it_equals_the_fields_on_pressure_levels():
    x = state()
    for label in ("temperature@1030", "temperature@500", "u_component_of_wind@300"):
        name, level = label.split("@")
        field = to_pressure(x, world(), [label])[0]
        row, column = np.meshgrid(np.arange(12), np.arange(24), indexing="ij")
        lat, lon = np.array(GRID.latitude)[row.ravel()], np.array(GRID.longitude)[column.ravel()]
        where = (lat, lon, np.full(288, name), np.full(288, float(level)))
        torch.testing.assert_close(OnPressure.at(GRID, CHANNELS, *where)(x), field.flatten())


def test_derivatives_and_the_moving_levels():
    operator = OnPressure.at(GRID, CHANNELS, *places(8))
    x = state().requires_grad_()
    assert torch.autograd.gradcheck(operator, x, fast_mode=True)
    # dT/dln(ps) = -dT/dln(p): halving p is as doubling ps, for winds everywhere.
    wind = (np.array([20.0]), np.array([33.0]), np.array(["u_component_of_wind"]))
    doubled = state()
    doubled[32] *= 2
    low, high = (OnPressure.at(GRID, CHANNELS, *wind, np.array([p])) for p in (300.0, 600.0))
    torch.testing.assert_close(low(state()), high(doubled))
    torch.testing.assert_close(low.sigma(state()), high.sigma(doubled))


def test_frozen_at_a_state_is_equal_there_linear_and_has_an_adjoint():
    operator, x = OnPressure.at(GRID, CHANNELS, *places()), state().float()
    frozen = operator.frozen(x)
    torch.testing.assert_close(frozen(x), operator(x), rtol=1e-5, atol=1e-5)
    assert frozen.index.shape == (60, 8)
    g = torch.Generator().manual_seed(1)
    a, y = torch.randn(33, 12, 24, generator=g), torch.randn(60, generator=g)
    left, right = (frozen(a) * y).sum(), (a * frozen.adjoint(y)).sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
    # With the surface pressure held, the operator itself is that linear map.
    moved = x + 0.1 * a * (torch.arange(33) < 32)[:, None, None]
    torch.testing.assert_close(operator(moved), frozen(moved), rtol=1e-5, atol=1e-4)


def table(**changes) -> pd.DataFrame:
    columns = {
        "time": "2008-12-08T12", "latitude": [10.0, 40.0, 40.0, -60.0],
        "longitude": [3.0, 100.0, 100.0, 300.0], "level": [500.0, np.nan, 700.0, np.nan],
        "height": [np.nan, 1000.0, 1000.0, np.nan],
        "variable": ["temperature", "surface_pressure", "u_component_of_wind", "surface_pressure"],
        "value": [250.0, 90000.0, 5.0, 98000.0], "type": "radiosonde", "station": list("abbc"),
    }  # fmt: skip
    return pd.DataFrame({**columns, **changes})


def test_a_mixed_table_is_observed_row_for_row():
    x, ground = state().float(), torch.full((12, 24), 400.0)
    mixed = operators_for(Observations(table()), GRID, CHANNELS, ground)
    seen = mixed(x)
    surface = build_operator(
        GRID, CHANNELS, [40, -60], [100, 300], ["surface_pressure"] * 2, [np.nan] * 2
    )(x)
    lowest = build_operator(GRID, CHANNELS, [40], [100], ["temperature"], [0.95])(x)[0]
    # 600 m above the model's ground.
    reduced = surface[0] * (1 - 0.0065 * 600 / lowest) ** (9.80665 / (287.05 * 0.0065))
    torch.testing.assert_close(seen[1], reduced)
    torch.testing.assert_close(seen[3], surface[1])
    assert 240 < seen[0] < 262 and abs(seen[2]) < 4 and len(mixed) == 4
    assert mixed.channel[1] == 32 and mixed.latitude.tolist() == [10, 40, 40, -60]
    torch.testing.assert_close(mixed.frozen(x)(x), seen)
    assert mixed(torch.stack([x, x])).shape == (2, 4)
    with pytest.raises(GapzooError, match="no observation"):
        operators_for(Observations(table())[:0], GRID, CHANNELS, ground)
    levels = Channels(["temperature@500", "temperature@850"], "pressure")
    with pytest.raises(GapzooError, match="already"):
        OnPressure.at(GRID, levels, *places(2))


def test_superobs_of_profiles_keep_stations_apart():
    levels = [500.0, 510.0, 505.0, 100.0]
    given = table(
        latitude=10.0, longitude=[359.9, 359.9, 0.1, 0.1], level=levels, variable="temperature",
        value=[250.0, 252.0, 260.0, 220.0], error=1.0, station=list("aabb"), height=5.0,
    )  # fmt: skip
    apart = superob(Observations(given), 30.0, levels=0.35, correlation=0.5, by_station=True).table
    np.testing.assert_allclose(apart["value"], [251, 260, 220])
    np.testing.assert_allclose(apart["level"], [np.sqrt(500 * 510), 505, 100])
    np.testing.assert_allclose(apart["error"], [0.75**0.5, 1, 1])
    assert apart["station"].tolist() == ["a", "b", "b"] and apart["height"].tolist() == [5.0] * 3
