"""One SPEEDY for every test that needs it: built, compiled and spun up once a process."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from gapzoo.core.climatology import Climatology
from gapzoo.core.world import World

DAYS = 20
START = pd.Timestamp("1990-01-01")


@cache
def model():
    """T21 with frames of 6 h; skips where the simulator is not installed."""
    pytest.importorskip("jcm", reason="needs the package jcm: pip install 'gapzoo[speedy]'")
    from gapzoo.speedy.model import SpeedyModel

    return SpeedyModel(21)


@cache
def sea() -> np.ndarray:
    """(1, H, W) SST of one January day, held all through."""
    from gapzoo.speedy.model import ocean

    return ocean(model()).sst(pd.DatetimeIndex([START]))


def advance(run, frames: int):
    """``model().advance`` over the held SST."""
    return model().advance(run, np.repeat(sea(), frames, 0))


@cache
def spun_up():
    """A run 20 days after rest. All its parts are of 4 frames, which compile once."""
    run = model().start(START, seed=0)
    for _ in range(DAYS):
        run, _ = advance(run, 4)
    return run


@cache
def following():
    """The run's next eight frames (8, C, H, W), and the runs after the first four and all."""
    middle, first = advance(spun_up(), 4)
    end, second = advance(middle, 4)
    return np.concatenate([first, second]), middle, end


@cache
def world() -> World:
    """Of the model: its first following frame is the climatology, its held SST the forcing's."""
    frame = following()[0][0]
    spread = np.abs(frame).mean((1, 2), keepdims=True) * 0.1 + np.zeros_like(frame)
    return World(
        name="speedy-t21",
        grid=model().grid,
        channels=model().channels,
        hours=6,
        climatology=Climatology(frame[None], spread[None] ** 2),
        diff_std=np.ones(len(frame)),
        forcing_channels=("sea_surface_temperature",),
        forcing_climatology=sea()[None],
        forcing_std=np.ones(1),
        static=model().surface_geopotential[None],
        static_channels=("geopotential_at_surface",),
    )
