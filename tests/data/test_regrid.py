"""Conservative regridding: integrals kept to rounding, constants kept, cells known by hand."""

import numpy as np
import pytest
from worlds import expect

from gapzoo.core import GapzooError, Grid
from gapzoo.data.regrid import Regridder, grid_named

GRIDS = ("16x8", "24x13", "gaussian-18x10", "10x5")


def integral(field, grid):
    return float((field.astype(np.float64) * grid.area_weights[:, None]).mean())


def random(grid, seed=0):
    return np.random.default_rng(seed).standard_normal(grid.shape)


@pytest.mark.parametrize("source", GRIDS)
@pytest.mark.parametrize("target", GRIDS)
def test_integrals_and_constants_are_kept(source, target):
    first, second = grid_named(source), grid_named(target)
    regridder, field = Regridder(first, second), random(first)
    exact = regridder._integrate(field) / regridder._area  # in double precision
    assert integral(exact, second) == pytest.approx(integral(field, first), abs=1e-14)
    constant = regridder(np.full((2, *first.shape), 288.15))
    assert np.abs(constant - 288.15).max() < 2e-5
    assert constant.shape == (2, *second.shape) and constant.dtype == np.float32


def test_the_integral_over_what_is_known_is_kept():
    """Against the overlap of every pair of cells, written out."""
    first, second = grid_named("16x8"), grid_named("10x5")
    field = random(first)
    field[random(first, 1) > 0.8] = np.nan
    field[:3, 2:9] = np.nan
    regridder = Regridder(first, second)
    area = np.einsum("ij,kl->ikjl", regridder.latitude.toarray(), regridder.longitude.toarray())
    known = (area * ~np.isnan(field)).sum((2, 3))
    total = (area * np.nan_to_num(field)).sum((2, 3))
    found = regridder(field)
    assert np.array_equal(np.isnan(found), known < 1e-12) and np.isnan(found).any()
    assert np.allclose(found[known > 0], (total / np.where(known > 0, known, 1))[known > 0], 1e-6)
    kept = np.nansum(found * known) - np.nansum(field * area.sum((0, 1)))
    assert abs(kept) < 1e-6
    half = Regridder(first, second, least=0.5)(field)
    share = known / area.sum((2, 3))
    assert np.array_equal(np.isnan(half), share < 0.5)


def test_two_cells_in_one_by_hand():
    """Rows 0-30 and 30-60 degrees into 0-60: weights sin 30 and sin 60 - sin 30."""
    first = Grid((-75.0, -45.0, -15.0, 15.0, 45.0, 75.0), (0.0, 180.0))
    second = Grid((-90.0, -30.0, 30.0, 90.0), (0.0, 180.0))  # edges -90, -60, 0, 60, 90
    field = np.arange(6.0)[:, None] * np.ones(2)
    low, high = 0.5, np.sqrt(0.75) - 0.5
    expected = [0.0, (high * 1 + low * 2) / (low + high), (low * 3 + high * 4) / (low + high), 5.0]
    assert Regridder(first, second)(field)[:, 0] == pytest.approx(expected, rel=1e-6)


def test_columns_are_shared_across_the_date_line_and_whatever_they_start_at():
    west = Grid((-45.0, 45.0), (-180.0, -90.0, 0.0, 90.0))
    east = Grid((-45.0, 45.0), (45.0, 135.0, 225.0, 315.0))
    field = np.tile([1.0, 2.0, 3.0, 4.0], (2, 1))
    assert Regridder(west, east)(field)[0].tolist() == [3.5, 2.5, 1.5, 2.5]
    turned = Regridder(east, west)(Regridder(west, east)(field))
    assert turned[0].tolist() == pytest.approx([2.0, 2.0, 3.0, 3.0])


def test_order_of_latitude_does_not_matter():
    north = Grid(tuple(np.linspace(90, -90, 13)), tuple(np.arange(0, 360, 15.0)))
    south, target = grid_named("24x13"), grid_named("10x5")
    field = random(south)
    assert np.allclose(Regridder(north, target)(field[::-1]), Regridder(south, target)(field))


def test_the_same_grid_gives_the_same_field():
    grid = grid_named("24x13")
    assert np.allclose(Regridder(grid, grid)(random(grid)), random(grid), atol=1e-6)


def test_named_grids():
    assert grid_named("240x121").latitude[:2] == pytest.approx((-90, -88.5))
    assert grid_named("64x32").latitude[0] == pytest.approx(-87.1875)
    assert grid_named("64x32").longitude[1] == 5.625
    assert grid_named("gaussian-64x32").latitude[-1] == pytest.approx(85.7606, abs=1e-4)
    for wrong in ("64", "64*32", "octahedral-64x32", "x32"):
        with expect(GapzooError, f"grid '{wrong}'", "240x121"):
            grid_named(wrong)
