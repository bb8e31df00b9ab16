"""Bounds of humidity: known saturation, what is within stays, what a roll-out yields obeys."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from linear import START, Linear
from worlds import flat_world

from gapzoo.core import Channels, MemberGenerator
from gapzoo.core.climatology import Climatology
from gapzoo.tasks.bounds import HumidityBounds, saturation
from gapzoo.tasks.rollout import Rollout

LABELS = ["temperature@0.5", "specific_humidity@0.5", "surface_pressure"]


@pytest.fixture
def world():
    """One level at 500 hPa, 250 K, 1 g/kg."""
    flat, shape = flat_world(channels=3), (1, 3, 2, 8)
    mean = np.array([250.0, 1e-3, 1e5])[None, :, None, None]
    variance = np.array([25.0, 1e-6, 250000.0])[None, :, None, None]
    fields = [np.broadcast_to(x, shape).astype(np.float32) for x in (mean, variance)]
    return dataclasses.replace(
        flat, channels=Channels(LABELS, "sigma"), climatology=Climatology(*fields)
    )


@pytest.mark.parametrize(
    ("kelvin", "hectopascal", "grams"),
    [(300.0, 1000.0, 22.3), (273.16, 1000.0, 3.81), (253.15, 500.0, 1.28), (220.0, 200.0, 0.0825)],
)
def test_saturation_as_in_tables(kelvin, hectopascal, grams):
    """Vapour pressures of 35.4, 6.11, 1.03 (ice) and 0.0265 hPa (ice), the last to 5 %."""
    found = saturation(torch.tensor(kelvin), torch.tensor(100 * hectopascal))
    assert abs(float(found) * 1e3 / grams - 1) < (0.01 if kelvin > 230 else 0.05)


def test_thin_air_never_saturates():
    assert float(saturation(torch.tensor(230.0), torch.tensor(10.0))) == 1.0


def test_only_what_is_beyond_changes(world):
    bounds, state = HumidityBounds(world, 1.0), torch.zeros(3, 3, 2, 8)
    state[:, 0], state[:, 2] = 250.0, 1e5
    state[:, 1] = torch.tensor([-1e-4, 5e-4, 5e-3])[:, None, None]
    found = bounds(state)
    most = saturation(torch.tensor(250.0), torch.tensor(5e4))
    assert torch.equal(found[0, 1], torch.zeros(2, 8)) and torch.equal(found[1], state[1])
    assert torch.allclose(found[2, 1], most.expand(2, 8))
    assert torch.equal(found[:, [0, 2]], state[:, [0, 2]]) and torch.equal(bounds(found), found)
    assert float(state[2, 1].max()) == pytest.approx(5e-3)  # what was given is as it was


def test_worlds_on_pressure_levels_and_without_humidity():
    pressure = Channels(["temperature@500", "specific_humidity@500"], "pressure")
    world = dataclasses.replace(flat_world(channels=2), channels=pressure)
    state = torch.stack([torch.full((2, 8), 250.0), torch.full((2, 8), 1.0)])
    most = saturation(torch.tensor(250.0), torch.tensor(5e4))
    assert torch.allclose(HumidityBounds(world, 1.0)(state)[1], most.expand(2, 8))
    dry = flat_world(channels=2)
    assert HumidityBounds(dry)(state) is state


def test_a_roll_out_goes_on_from_states_within(world):
    """A forecaster that moistens by two spreads a day meets saturation and stays there."""

    class Moistening(Linear):
        def step(self, state, time, hours, forcing=None, generator=None):
            return state + torch.tensor([0.0, 2.0, 0.0])[:, None, None]

    bounds = HumidityBounds(world, 1.0)
    roll = Rollout(forecaster=Moistening(world), world=world, bounds=bounds)
    states = roll.run(torch.zeros(1, *world.shape), START, MemberGenerator(0, 1))
    most = float(saturation(torch.tensor(250.0), torch.tensor(5e4)))
    for _ in range(5):
        time, state = next(states)
    physical = world.denormalise(state[None], pd.DatetimeIndex([time]))[0]
    assert float(physical[0, 1].max()) == pytest.approx(most, rel=1e-4)
