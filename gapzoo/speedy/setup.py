"""How jcm 3.0.0 is set up: terrain, diffusion, SPEEDY's parameters, climatological forcing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gapzoo.core import GapzooError
from gapzoo.speedy.boundary import boundary_file

STEP_MINUTES = {21: 30, 31: 40}
"""Time step by truncation."""
DIFFUSION_SECONDS = 2.4 * 3600


def built(truncation: int, parameters: dict[str, float]) -> Any:
    """The model of a truncation, 21 or 31, with some parameters replaced (``_changed``)."""
    from jcm.diffusion import DiffusionFilter
    from jcm.dycore.dinosaur.dycore import DinosaurDycore
    from jcm.model import Model
    from jcm.physics.speedy.params import Parameters
    from jcm.physics.speedy.speedy_coords import get_speedy_coords
    from jcm.physics.speedy.speedy_terms import speedy_physics
    from jcm.terrain import TerrainData

    physics = speedy_physics(_changed(Parameters.default(), parameters), checkpoint_terms=False)
    coords = get_speedy_coords(layers=8, spectral_truncation=truncation)
    with _merging():
        terrain = TerrainData.from_file(boundary_file("clim/terrain.nc"), coords=coords)
    orders = {f"{k}_order": 4 for k in ("div", "vor_q", "temp")}
    scales = {f"{k}_timescale": DIFFUSION_SECONDS for k in ("div", "vor_q", "temp")}
    core = DinosaurDycore(
        coords=coords,
        terrain=terrain,
        dt_seconds=STEP_MINUTES[truncation] * 60,
        diffusion=DiffusionFilter(**orders, **scales),
    )
    return Model(core, physics=physics)


def _changed(default: Any, parameters: dict[str, float]) -> Any:
    """SPEEDY's parameters with some replaced, named ``group.parameter``."""
    import dataclasses

    for name, value in parameters.items():
        group, _, key = name.partition(".")
        old = getattr(default, group, None)
        if old is None or not hasattr(old, key):
            raise GapzooError(f"SPEEDY has no parameter '{name}'; name it group.parameter")
        default = dataclasses.replace(default, **{group: dataclasses.replace(old, **{key: value})})
    return default


def climate(coords: Any) -> Any:
    """Climatological forcing on a model's grid."""
    from jcm.forcing import ForcingData

    path = boundary_file("clim/forcing.nc")
    with _merging():
        return ForcingData.from_file(path, coords=coords, align_mode="wrap_year")


@contextmanager
def _merging() -> Iterator[None]:
    """jcm, which is pinned, merges by defaults that xarray warns it will change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="jcm")
        yield
