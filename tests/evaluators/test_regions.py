"""Regions: shares of cells, exact areas, partition of the globe."""

import numpy as np
import pytest

from gapzoo.core import GapzooError, Grid
from gapzoo.evaluators.regions import BOXES, box, region_weights


def _grid(rows, columns, descending=False):
    edges = np.linspace(-90, 90, rows + 1)
    lat = (edges[1:] + edges[:-1]) / 2
    return Grid(tuple(lat[::-1] if descending else lat), tuple(np.arange(columns) * 360 / columns))


def _area(grid, weights):
    return (grid.area_weights[:, None] * weights).mean()


@pytest.mark.parametrize("rows", [5, 32])
@pytest.mark.parametrize("descending", [False, True])
def test_bands_have_their_exact_areas_and_add_up(rows, descending):
    grid = _grid(rows, 8, descending)
    parts = ["tropics", "northern_extratropics", "southern_extratropics"]
    shares = [region_weights(name, grid) for name in parts]
    np.testing.assert_allclose(sum(shares), region_weights("global", grid), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(region_weights("global", grid), np.ones(grid.shape))
    assert _area(grid, shares[0]) == pytest.approx(np.sin(np.deg2rad(20)), abs=1e-12)
    north = np.asarray(grid.latitude) > 40
    assert shares[1][north].min() == 1 and shares[1][::-1][north].max() == 0


@pytest.mark.parametrize(("west", "east", "width"), [(10, 50, 40), (350, 20, 30), (-170, 170, 340)])
def test_box_has_its_exact_area(west, east, width):
    grid = _grid(18, 16)
    expected = (np.sin(np.deg2rad(33)) - np.sin(np.deg2rad(-7))) / 2 * width / 360
    assert _area(grid, box(grid, -7, 33, west, east)) == pytest.approx(expected, abs=1e-12)


def test_box_covers_the_cells_inside_it():
    weights = box(_grid(18, 36), 0, 20, 345, 15)
    assert np.flatnonzero(weights[9]).tolist() == [0, 1, 35]
    assert weights[9, [0, 1, 35]].tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("name", BOXES)
def test_named_boxes_have_their_areas(name):
    grid = _grid(36, 72)
    south, north, west, east = BOXES[name]
    width = (east - west) % 360 or 360
    expected = np.diff(np.sin(np.deg2rad([south, north])))[0] / 2 * width / 360
    assert _area(grid, region_weights(name, grid)) == pytest.approx(expected, abs=1e-12)
    text = f"box:{south},{north},{west},{east}"
    np.testing.assert_array_equal(region_weights(text, grid), region_weights(name, grid))


def test_the_nao_sector_crosses_greenwich():
    weights = region_weights("north_atlantic_sector", _grid(18, 36))
    assert weights[12, [0, 4, 27, 35]].tolist() == [1, 0.5, 0.5, 1]
    assert weights[12, 5:27].max() == 0 and weights[12, 28:].min() == 1


def test_land_and_sea_share_the_globe():
    grid = _grid(4, 6)
    land = np.random.default_rng(0).uniform(size=grid.shape)
    total = region_weights("land", grid, land) + region_weights("sea", grid, land)
    np.testing.assert_allclose(total, 1)


def test_bad_regions_are_named():
    grid = _grid(4, 6)
    with pytest.raises(GapzooError, match="did you mean 'tropics'"):
        region_weights("tropic", grid)
    with pytest.raises(GapzooError, match="'land' needs land="):
        region_weights("land", grid)
    with pytest.raises(GapzooError, match=r"within 0\.\.1"):
        region_weights("sea", grid, np.full((4, 6), np.nan))
    with pytest.raises(GapzooError, match="write box:SOUTH,NORTH,WEST,EAST"):
        region_weights("box:1,2,3", grid)
    with pytest.raises(GapzooError, match="south must be below north"):
        box(grid, 20, -20)
