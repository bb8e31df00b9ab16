"""Maps: coastlines lie where they lie, units are right, pictures and text are whole."""

import numpy as np
import pytest
from worlds import expect, grid_of

from gapzoo.core import GapzooError
from gapzoo.report import maps

GRID = grid_of(8, 16)
FIELD = np.arange(128.0).reshape(8, 16)


def crossings(latitude: float, west: float) -> list[float]:
    """Longitudes at which coastlines cross a latitude."""
    lines = maps.coastline(west)
    low, high = lines[:-1], lines[1:]
    with np.errstate(all="ignore"):
        cross = (low[:, 1] - latitude) * (high[:, 1] - latitude) < 0
        share = (latitude - low[:, 1]) / (high[:, 1] - low[:, 1])
        found = low[:, 0] + share * (high[:, 0] - low[:, 0])
    return sorted(found[cross].tolist())


def test_coastlines_lie_where_they_lie():
    """20 S: Angola's coast, Mozambique's, Madagascar's, Australia's; Chile's and Brazil's."""
    found = np.array(crossings(-20.5037, 0.0))
    for east in (13.4, 34.8, 44.2, 48.6, 118.0, 148.6, 290.0, 319.7):
        assert np.abs(found - east).min() < 1.0, east
    here = np.array(crossings(-20.5037, -180.0))
    assert np.allclose(np.sort(here % 360), found), "whatever the map begins with"


def test_no_line_runs_across_the_map():
    for west in (0.0, -180.0, -2.8):
        lines = maps.coastline(west)
        assert np.nanmax(np.abs(np.diff(lines[:, 0]))) < 180
        assert np.nanmin(lines[:, 0]) >= west and np.nanmax(lines[:, 0]) <= west + 360


def test_units_that_forecasters_read():
    values, units = maps.shown(np.array([98000.0]), "Pa")
    assert values == pytest.approx([980]) and units == "hPa"
    assert maps.shown(np.array([9.80665 * 5500]), "m2 s-2")[0] == pytest.approx([5500])
    assert maps.shown(np.array([280.0]), "K")[1] == "K"


def test_colours_part_at_zero_for_winds_and_differences():
    assert maps.colours_of("u_component_of_wind@500", False) == ("RdBu_r", True)
    assert maps.colours_of("temperature@500", True) == ("RdBu_r", True)
    assert maps.colours_of("temperature@500", False) == ("viridis", False)
    assert maps.limits_of(np.array([-1.0, 3.0]), True) == (-3.0, 3.0)
    assert maps.limits_of(np.array([2.0, 2.0]), False) == (1.5, 2.5)


def test_a_picture_holds_the_field_at_its_place(tmp_path):
    figure = maps.map_figure(GRID, FIELD, title="a", units="K", land=(FIELD > 60) * 1.0)
    ax = figure.axes[0]
    mesh = ax.collections[0]
    assert np.array_equal(np.asarray(mesh.get_array()).ravel(), FIELD.ravel())
    corners = np.asarray(mesh.get_coordinates())
    assert corners[0, 0].tolist() == [-11.25, -90.0] and corners[-1, -1].tolist() == [348.75, 90.0]
    path = maps.save(figure, tmp_path / "sub" / "map.png")
    assert path.read_bytes().startswith(b"\x89PNG") and len(list(path.parent.iterdir())) == 1
    with expect(GapzooError, "kind 'xyz'", ".png"):
        maps.save(figure, tmp_path / "map.xyz")


@pytest.mark.parametrize("projection", ["robinson", "north", "south"])
def test_projections(projection, tmp_path):
    pytest.importorskip("cartopy", reason="needs the extra maps")
    figure = maps.map_figure(GRID, FIELD, title="a", units="K", projection=projection)
    assert maps.save(figure, tmp_path / "m.png").stat().st_size > 10_000


def test_projections_without_cartopy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cartopy", None)
    with expect(GapzooError, "'robinson' needs cartopy", "gapzoo[maps]"):
        maps.map_figure(GRID, FIELD, title="a", units="K", projection="robinson")
    with expect(GapzooError, "projection 'robbinson'", "did you mean 'robinson'"):
        maps.map_figure(GRID, FIELD, title="a", units="K", projection="robbinson")


def test_a_thumbnail_is_the_field_from_north_to_south():
    text = maps.thumbnail(GRID, np.where(FIELD >= 64, 1.0, 0.0), width=32, colour=False)
    lines = text.plain.split("\n")
    assert [len(line) for line in lines] == [32] * 8
    assert set("".join(lines[:4])) == {"@"} and set("".join(lines[4:])) == {" "}
    coloured = maps.thumbnail(GRID, FIELD, width=32)
    assert [len(line) for line in coloured.plain.split("\n")] == [32] * 8
    assert set(coloured.plain) == {"▀", "\n"} and len(coloured.spans) == 256
