"""The grid: exact areas, what it refuses."""

import numpy as np
import pytest

from gapzoo.core import GapzooError, Grid


def even(width: int) -> tuple[float, ...]:
    return tuple(360 / width * np.arange(width))


def test_areas_are_those_of_spherical_zones():
    """Archimedes: a zone's area is 2 pi R^2 times its height; three of equal height are alike."""
    edges = np.rad2deg(np.arcsin([-1, -1 / 3, 1 / 3, 1]))
    middle = edges[2]  # latitudes whose midpoints are the edges at +-1/3
    grid = Grid((-2 * middle, 0.0, 2 * middle), even(4))
    assert grid.area_weights == pytest.approx([1.0, 1.0, 1.0], abs=1e-12)


def test_areas_with_points_at_the_poles_and_from_the_north():
    grid = Grid((90.0, 45.0, 0.0, -45.0, -90.0), even(2))
    tops = np.sin(np.deg2rad([90, 67.5, 22.5, -22.5, -67.5, -90]))
    expected = -np.diff(tops)
    assert grid.area_weights == pytest.approx(expected / expected.mean(), abs=1e-12)
    south = Grid(grid.latitude[::-1], even(2))
    assert south.area_weights == pytest.approx(grid.area_weights[::-1])


def test_the_mean_of_squared_sine_of_latitude_converges_to_a_third():
    def mean(rows):
        latitude = -90 + 180 / rows * (np.arange(rows) + 0.5)
        weights = Grid(tuple(latitude), even(2)).area_weights
        return (weights * np.sin(np.deg2rad(latitude)) ** 2).mean()

    errors = [abs(mean(n) - 1 / 3) for n in (45, 90)]
    assert errors[1] < 1e-4 and errors[0] / errors[1] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(
    "latitude", [(0.0,), (0.0, 0.0), (0.0, 10.0, 5.0), (0.0, 91.0), (0.0, np.nan)]
)
def test_bad_latitudes_are_refused(latitude):
    with pytest.raises(GapzooError, match="latitude must be monotonic"):
        Grid(latitude, even(4))


@pytest.mark.parametrize(
    "longitude", [(0.0,), (0.0, 90.0, 180.0), (270.0, 180.0, 90.0, 0.0), (0.0, 91.0, 180.0, 270.0)]
)
def test_bad_longitudes_are_refused(longitude):
    with pytest.raises(GapzooError, match="longitude must be ascending, even and global"):
        Grid((-45.0, 45.0), longitude)


def test_matching_needs_the_same_points():
    grid = Grid((-45.0, 45.0), even(4))
    assert grid.matches(Grid((-45.0005, 45.0), even(4)))
    assert not grid.matches(Grid((-45.1, 45.0), even(4)))
    assert not grid.matches(Grid((-45.0, 45.0), even(8)))
    assert not grid.matches(Grid((-45.0, 45.0), tuple(x - 180 for x in even(4))))
