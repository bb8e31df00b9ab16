"""The adiabatic tendency: flows whose tendency is known, and the core that SPEEDY runs on."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from speedy_runs import following, model, world
from worlds import flat_world

from gapzoo.core import Channels, Grid
from gapzoo.core.climatology import Climatology
from gapzoo.core.grid import EARTH_RADIUS
from gapzoo.core.pressure import GAS_CONSTANT
from gapzoo.core.primitive import ROTATION, Adiabatic, Derivatives, _edges
from gapzoo.core.truncation import TriangularTruncation

SIGMA, LEVELS = (0.2, 0.5, 0.85), (200.0, 500.0, 850.0)
NAMES = ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
HEIGHT, WIDTH = 24, 48


def grid(height=HEIGHT):
    nodes, _ = np.polynomial.legendre.leggauss(height)
    longitude = np.linspace(0, 360, 2 * height, endpoint=False)
    return Grid(tuple(np.rad2deg(np.arcsin(nodes))), tuple(longitude))


def angles(where=None):
    where = where or grid()
    latitude = torch.deg2rad(torch.tensor(where.latitude, dtype=torch.float64))[:, None]
    return latitude, torch.deg2rad(torch.tensor(where.longitude, dtype=torch.float64))[None]


def of(names, levels, kind, surface=(), ground=None):
    """A world of those variables on levels; the mean is zero, but 280 K and 1000 hPa."""
    labels = [f"{name}@{level:g}" for name in names for level in levels] + list(surface)
    ones, where = np.ones((1, len(labels), HEIGHT, WIDTH), np.float32), grid()
    usual = [280.0 * ("temp" in n) + 1e5 * ("pressure" in n) for n in labels]
    mean = np.array(usual, np.float32)[None, :, None, None] * ones
    ground = np.zeros(where.shape) if ground is None else ground
    return dataclasses.replace(
        flat_world(len(labels), HEIGHT, WIDTH),
        grid=where,
        channels=Channels(labels, kind),
        climatology=Climatology(mean, ones),
        static=np.stack([ground]),
        static_channels=("geopotential_at_surface",),
    )


def rotation(tilt, speed=30.0):
    """Solid rotation about an axis that leans by ``tilt`` (Williamson et al. 1992, case 1)."""
    phi, lam = angles()
    u = speed * (phi.cos() * np.cos(tilt) + phi.sin() * lam.cos() * np.sin(tilt))
    return u, -speed * lam.sin() * np.sin(tilt) + 0 * phi


def stacked(fields, levels=3):
    return torch.stack([f for f in fields for _ in range(levels)])[None].float()


@pytest.mark.parametrize("tilt", [0.0, 0.7, np.pi / 2])
def test_a_field_is_carried_over_the_poles_by_solid_rotation(tilt):
    own = Adiabatic(of(NAMES, LEVELS, "pressure"))
    (phi, lam), (u, v) = angles(), rotation(tilt)
    tracer = phi.cos() ** 2 * (2 * lam).cos() + phi.sin()
    slopes = (
        -2 * phi.cos() * (2 * lam).sin(),
        -2 * phi.cos() * phi.sin() * (2 * lam).cos() + phi.cos(),
    )
    expected = -(u * slopes[0] + v * slopes[1]) / EARTH_RADIUS
    found = own.tendency(stacked([u, v, 0 * u, tracer]))[0, 9:]
    torch.testing.assert_close(found, expected.float().expand(3, -1, -1), rtol=0, atol=2e-10)
    assert expected.abs().max() > 3e-6


def test_balanced_flow_stays(seed=0):
    """u = U cos(phi) with its geopotential (Williamson et al. 1992, case 2)."""
    names = ("u_component_of_wind", "v_component_of_wind", "geopotential")
    own, (phi, lam) = Adiabatic(of(names, LEVELS, "pressure")), angles()
    u, _ = rotation(0.0)
    height = -(EARTH_RADIUS * ROTATION * 30.0 + 30.0**2 / 2) * phi.sin() ** 2 + 0 * lam
    found = own.tendency(stacked([u, 0 * u, height]))[0]
    assert found[:6].abs().max() < 1e-3 * (2 * ROTATION * 30.0)
    without = own.tendency(stacked([u, 0 * u, 0 * u]))[0, 3:6]
    assert without.abs().max() > 0.9 * ROTATION * 30.0


def test_air_at_rest_over_mountains_stays():
    """Isothermal and dry: p_s = p_0 exp(-Phi_s / R T), whose two gradients cancel."""
    phi, lam = angles()
    ground = 9e3 * (phi.cos() ** 4 * (1 + (3 * lam).cos()) / 2)
    own = Adiabatic(of(NAMES, SIGMA, "sigma", ("surface_pressure",), ground.numpy()))
    heat = torch.full_like(ground, 270.0)
    pressure = 1e5 * torch.exp(-ground / (GAS_CONSTANT * 270.0))
    state = torch.cat(
        [stacked([0 * heat, 0 * heat, heat, 0 * heat]), pressure[None, None].float()], 1
    )
    found = own.tendency(state)[0]
    steep = float(own.sphere.east(ground.float()).abs().max())
    assert steep > 0.002 and found[:6].abs().max() < 2e-3 * steep
    assert found[6:].abs().max() < 1e-6


def test_the_mass_of_the_air_is_kept_and_sinking_air_warms():
    own = Adiabatic(of(NAMES, SIGMA, "sigma", ("surface_pressure",)))
    (phi, lam), zero = angles(), torch.zeros(HEIGHT, WIDTH, dtype=torch.float64)
    inward = -10.0 * torch.sin(2 * phi) + zero  # towards the equator, alike at all levels
    pressure = 1e5 + 500 * phi.cos() * lam.cos()
    state = torch.cat([stacked([zero, inward, zero + 280, zero]), pressure[None, None].float()], 1)
    found = own.tendency(state)[0]
    weights = np.polynomial.legendre.leggauss(HEIGHT)[1][:, None] / 2 / WIDTH
    change = found[12].double().numpy()
    assert abs((change * weights).sum()) < 1e-4 * np.abs(change).max()
    row = HEIGHT // 2
    assert change[row].min() > 0 and change[0].max() < 0
    assert (found[6:9, row].mean(-1) > 0).all()  # compressed
    assert found[:, row].isfinite().all()


def test_derivatives_are_exact_for_smooth_fields_with_rows_at_the_poles_too():
    even = Grid(tuple(np.linspace(-90, 90, 25)), tuple(np.linspace(0, 360, 48, endpoint=False)))
    for where in (grid(), even):
        phi, lam = angles(where)
        field = (phi.cos() ** 3 * (3 * lam).cos() + phi.sin() ** 2).float()
        slope = -3 * phi.cos() ** 2 * phi.sin() * (3 * lam).cos() + 2 * phi.sin() * phi.cos()
        found = Derivatives(where).north(field) * EARTH_RADIUS
        torch.testing.assert_close(found, slope.float() + 0 * field, rtol=0, atol=2e-4)


def test_worlds_without_winds_on_levels_have_none_and_others_leave_strangers_alone():
    assert Adiabatic.of(flat_world(3)) is None
    surface = ("mean_sea_level_pressure",)
    own = Adiabatic.of(of((*NAMES[:2], "temperature"), LEVELS, "pressure", surface))
    u, v = rotation(0.3)
    msl = torch.full((1, 1, HEIGHT, WIDTH), 1e5)
    state = torch.cat([stacked([u, v, 0 * u + 280]), msl], 1)
    assert own is not None and not own.tendency(state)[:, 9:].any()
    np.testing.assert_allclose(_edges(own.world, np.array(LEVELS)), [0, 350, 675, 850])


def test_a_state_has_the_tendency_that_it_has_alone_less_that_of_the_climatology():
    times = pd.DatetimeIndex(["1990-01-01", "1990-07-01", "1990-01-01"])
    own = Adiabatic(of(NAMES, SIGMA, "sigma", ("surface_pressure",)))
    z = torch.randn(3, 13, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    together = own(z, times)
    for n in range(3):
        alone = own(z[n : n + 1], times[n : n + 1])[0]
        torch.testing.assert_close(alone, together[n], rtol=1e-4, atol=1e-4)
    assert not own(0 * z, times).any() and together.abs().amax((1, 2, 3)).min() > 1


def test_it_is_the_tendency_of_the_core_that_speedy_runs_on():
    """dinosaur's explicit and implicit terms, of other sums over levels: as alike as those are."""
    frame, space = following()[0][5], TriangularTruncation(model().grid, 21)
    own = Adiabatic(world()).tendency(torch.from_numpy(frame)[None])[0]
    wind = torch.cat(space.winds(own[:8], own[8:16]))
    own = torch.cat([wind, space.scalars(own[16:24]), space.scalars(own[32:33])])
    for level, (a, b) in enumerate(zip(own, core_tendency(frame), strict=True)):
        like = float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
        assert like > (0.9 if level < 16 else 0.99), level
        assert 0.85 < float(a.std() / b.std()) < 1.35, level


def core_tendency(frame):
    """(25, H, W) of u, v, T by level and surface pressure, SI units."""
    from dinosaur.scales import units
    from dinosaur.spherical_harmonic import vor_div_to_uv_nodal

    speedy = model()
    core, state = speedy._model.dycore, speedy.encode(frame)
    grid = speedy._model.coords.horizontal
    parts = core.primitive.explicit_terms(state), core.primitive.implicit_terms(state)
    turn, spread, heat, pressure = (
        sum(getattr(part, name) for part in parts)
        for name in ("vorticity", "divergence", "temperature_variation", "log_surface_pressure")
    )
    wind = [speedy._speed * x for x in vor_div_to_uv_nodal(grid, turn, spread, clip=False)]
    scalars = [grid.to_nodal(heat), grid.to_nodal(pressure) * np.swapaxes(frame[32:33], -1, -2)]
    second = core.physics_specs.nondimensionalize(1.0 * units.second)
    fields = np.concatenate([np.asarray(x) for x in (*wind, *scalars)])
    return torch.from_numpy(np.swapaxes(fields, -1, -2) * float(second)).float()
