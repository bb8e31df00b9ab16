"""A forecaster abroad: persistence there is persistence here, since both keep SI units."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import grid_of, toy_archive

from gapzoo.core import GapzooError
from gapzoo.core.climatology import Climatology
from gapzoo.data.module import world_of
from gapzoo.forecasters import FORECASTERS
from gapzoo.forecasters.abroad import Abroad
from gapzoo.forecasters.trivial import Persistence

TIMES = [pd.Timestamp("1979-03-01 12:00"), pd.Timestamp("1979-09-01")]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    here = world_of(toy_archive(tmp_path_factory.mktemp("toy") / "a.zarr"))
    mean, variance = here.climatology.mean_coefficients, here.climatology.variance_coefficients
    return here, dataclasses.replace(here, climatology=Climatology(1.01 * mean, 4 * variance))


def test_persistence_abroad_is_persistence(worlds):
    here, there = worlds
    own = FORECASTERS.build("persistence", world=here)
    abroad = Abroad(FORECASTERS.build("persistence", world=there), here)
    states = [torch.randn(n, *here.shape) for n in (2, 3)]
    for state in states:
        found = abroad.step(state, TIMES[0], 240)
        torch.testing.assert_close(found, own.step(state, TIMES[0], 240), rtol=0, atol=1e-3)
    several = abroad.steps(states, TIMES, 48, [None, None], [None, None])
    for state, time, found in zip(states, TIMES, several, strict=True):
        torch.testing.assert_close(found, own.step(state, time, 48), rtol=0, atol=1e-3)


def test_the_sea_is_told_as_it_is_at_home(worlds):
    """Warmer by 2 K on average: no anomaly there is one of 2 K here."""
    here, there = worlds
    warm = there.forcing_climatology.copy()
    warm[0, 0] += 2.0
    told = []

    class Listener(Persistence):
        def step(self, state, time, hours, forcing=None, generator=None):
            told.append(forcing)
            return state

    home = FORECASTERS.build("persistence", world=there)
    away = dataclasses.replace(here, forcing_climatology=warm)
    anomaly = np.full((len(here.forcing_channels), *here.grid.shape), 0.5, np.float32)
    state = torch.randn(1, *here.shape)
    for world, given, expected in (
        (here, None, None),
        (here, anomaly, anomaly),
        (away, anomaly, [2.5, 0.5]),
        (away, None, [2.0, 0.0]),
    ):
        Abroad(Listener(there), world).step(state, TIMES[0], 24, given)
        if isinstance(expected, list):
            expected = np.array(expected[: len(anomaly)])[:, None, None] + 0 * anomaly
        assert (told[-1] is None) if expected is None else np.allclose(told[-1], expected)
    other = dataclasses.replace(here, forcing_channels=("ice",) * len(here.forcing_channels))
    with pytest.raises(GapzooError, match="a forecaster takes the forcing"):
        Abroad(home, other)


def test_climatology_abroad_is_the_other_climatology(worlds):
    here, there = worlds
    abroad = Abroad(FORECASTERS.build("climatology", world=there), here)
    found = abroad.step(torch.randn(1, *here.shape), TIMES[0], 24)
    later = pd.DatetimeIndex([TIMES[0] + pd.Timedelta(days=1)])
    known = (there.mean(later) - here.mean(later)) / here.std
    torch.testing.assert_close(found, known, rtol=1e-5, atol=1e-3)
    assert known.abs().max() > 0.5


def test_it_needs_the_same_grid_and_a_positive_lead(worlds):
    here, there = worlds
    coarse = dataclasses.replace(there, grid=grid_of(2, 4))
    with pytest.raises(GapzooError, match="another grid"):
        Abroad(FORECASTERS.build("persistence", world=coarse), here)
    with pytest.raises(GapzooError, match="positive lead"):
        Abroad(FORECASTERS.build("persistence", world=there), here).step(
            torch.zeros(1, *here.shape), TIMES[0], 0
        )
