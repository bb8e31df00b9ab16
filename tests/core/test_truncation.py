"""The space of a spectral model: spherical harmonics stay or go, winds are those of potentials."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from worlds import expect, flat_world, grid_of

from gapzoo.core import Channels, GapzooError, Grid, MemberGenerator
from gapzoo.core.climatology import Climatology
from gapzoo.core.truncation import TriangularTruncation, Truncated, truncated
from gapzoo.diffusion import SAMPLERS, SCHEDULES, GaussianDenoiser, Prior
from gapzoo.diffusion.guidance import GaussianConstraint, Identity

N, H, W = 5, 10, 16
NAMES = ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")


def gaussian(height=H, width=W, north_first=False) -> Grid:
    nodes, _ = np.polynomial.legendre.leggauss(height)
    latitude = np.rad2deg(np.arcsin(nodes))[:: -1 if north_first else 1]
    return Grid(tuple(latitude), tuple(360 / width * np.arange(width)))


def harmonic(grid, n, m):
    """(1, H, W) real part of Y_n^m."""
    theta = np.pi / 2 - np.deg2rad(grid.latitude)[:, None]
    found = sph_harm_y(n, m, theta, np.deg2rad(grid.longitude)).real
    return torch.from_numpy(found[None].astype(np.float32))


@pytest.fixture(scope="module", params=[False, True], ids=["south first", "north first"])
def space(request):
    return TriangularTruncation(gaussian(north_first=request.param), N)


@pytest.mark.parametrize("north_first", [False, True])
def test_harmonics_of_the_model_stay_and_others_go(north_first):
    grid = gaussian(north_first=north_first)
    space = TriangularTruncation(grid, N)
    for n in range(N + 4):
        for m in range(min(n, W // 2 - 1) + 1):
            field = harmonic(grid, n, m)
            kept = field if n <= N + 1 and m <= N else torch.zeros_like(field)
            torch.testing.assert_close(space.scalars(field), kept, atol=1e-5, rtol=0)


def rotation(angle, latitude, longitude):
    """u, v of a solid rotation about an axis tilted by an angle (Williamson et al. 1992)."""
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None]
    u = np.cos(phi) * np.cos(angle) + np.sin(phi) * np.cos(lam) * np.sin(angle)
    v = -np.sin(lam) * np.sin(angle) + 0 * phi
    return (torch.from_numpy(x[None].astype(np.float32)) for x in (u, v))


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2])
def test_a_solid_rotation_about_any_axis_is_a_wind_of_the_coarsest_model(angle):
    grid = gaussian()
    u, v = rotation(angle, grid.latitude, grid.longitude)
    east, north = TriangularTruncation(grid, 1).winds(u, v)
    torch.testing.assert_close(east, u, atol=1e-5, rtol=0)
    torch.testing.assert_close(north, v, atol=1e-5, rtol=0)


def test_winds_that_are_scalars_of_the_model_are_no_winds_of_it(space):
    """A constant u has a kink at the poles, which no stream function of finite degree has."""
    u = torch.ones(1, H, W)
    east, north = space.winds(u, torch.zeros_like(u))
    assert (east - u).abs().max() > 0.05
    assert north.abs().max() < 1e-5


def test_it_is_an_orthogonal_projection_in_area(space):
    weights = torch.from_numpy(np.polynomial.legendre.leggauss(H)[1]).float()[:, None]
    a, b, c, d = torch.randn(4, 3, H, W, generator=torch.Generator().manual_seed(0))
    once = space.scalars(a)
    torch.testing.assert_close(space.scalars(once), once, atol=1e-5, rtol=0)
    left, right = (once * b * weights).sum(), (a * space.scalars(b) * weights).sum()
    torch.testing.assert_close(left, right, atol=1e-3, rtol=0)
    u, v = space.winds(a, b)
    x, y = space.winds(c, d)
    left, right = ((u * c + v * d) * weights).sum(), ((a * x + b * y) * weights).sum()
    torch.testing.assert_close(left, right, atol=1e-3, rtol=0)
    assert (u**2 + v**2).mul(weights).sum() < (a**2 + b**2).mul(weights).sum()


def test_a_turn_of_the_sphere_commutes(space):
    u, v = torch.randn(2, 2, H, W, generator=torch.Generator().manual_seed(1))
    turned = space.winds(u.roll(3, -1), v.roll(3, -1))
    for a, b in zip(turned, space.winds(u, v), strict=True):
        torch.testing.assert_close(a, b.roll(3, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("grid", "truncation"), [(grid_of(H, W), N), (gaussian(H, 10), N), (gaussian(6), N)]
)
def test_a_grid_that_does_not_hold_it_is_refused(grid, truncation):
    with expect(GapzooError, "does not hold truncation", "Gaussian"):
        TriangularTruncation(grid, truncation)


def spectral_world(grid=None):
    """Winds, temperature, humidity on two levels, pressure, and rain, which no model carries."""
    grid = grid or gaussian()
    names = [f"{name}@{level}" for name in NAMES for level in (0.2, 0.9)]
    names += ["surface_pressure", "total_precipitation_6hr"]
    mean = np.zeros((1, len(names), *grid.shape), np.float32)
    mean[:, -2] = 1e5 * np.exp(-harmonic(grid, 6, 2).numpy())
    variance = 1 + np.abs(np.random.default_rng(0).standard_normal(mean.shape))
    flat = flat_world(len(names), *grid.shape)
    return dataclasses.replace(
        flat,
        grid=grid,
        channels=Channels(names, "sigma"),
        climatology=Climatology(mean, variance.astype(np.float32)),
        details={"arguments": {"truncation": N}},
    )


def test_states_of_the_model_stay_whatever_they_are_normalised_with():
    """Winds of a rotation, harmonics, a small change of the logarithm of pressure."""
    world = spectral_world()
    u, v = rotation(0.4, world.grid.latitude, world.grid.longitude)
    change = harmonic(world.grid, 4, 3)
    mean = torch.from_numpy(world.climatology.mean_coefficients[0, -2])
    rows = [u, -u, v, -v, *[change] * 4, 1e-5 * mean * change, torch.randn(1, H, W)]
    z = torch.cat(rows) / world.std
    torch.testing.assert_close(Truncated(world)(z), z, atol=1e-5, rtol=1e-4)


def test_what_the_model_does_not_carry_is_left_to_the_bit():
    world = spectral_world()
    z = torch.randn(4, *world.shape, generator=torch.Generator().manual_seed(2))
    out = Truncated(world)(z)
    assert torch.equal(out[:, -1], z[:, -1])
    assert ((out - z)[:, :-1].abs().amax((0, 2, 3)) > 0.1).all()
    assert torch.equal(Truncated(world)(z[2:3]), out[2:3])


def test_worlds_of_no_spectral_model_or_of_another_grid_have_none():
    world = spectral_world()
    assert truncated(world) is not None
    assert truncated(dataclasses.replace(world, details={})) is None
    assert truncated(dataclasses.replace(world, grid=grid_of(H, W))) is None
    coarse = dataclasses.replace(world, details={"arguments": {"truncation": H - 1}})
    assert truncated(coarse) is None


class Supported(GaussianDenoiser):
    """White noise that is known to lie in the model's space."""

    def finish(self, x):
        return Truncated(spectral_world())(x)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "exponential"])
def test_samples_and_analyses_lie_in_the_space(sampler):
    world = spectral_world()
    prior = Prior(Supported(torch.zeros(1, 1, 1), 1.0, SCHEDULES.build("edm")))
    seen = GaussianConstraint(Identity(), torch.ones(1, *world.shape), 1.0)
    for posterior in (prior.given(), prior.given(observations=seen)):
        drawn = SAMPLERS.build(sampler, denoiser=posterior, steps=4)
        states = drawn(shape=world.shape, generator=MemberGenerator(0, 2))
        torch.testing.assert_close(Truncated(world)(states), states, atol=1e-5, rtol=0)
        assert states.std() > 0.1
