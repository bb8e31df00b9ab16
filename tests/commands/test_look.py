"""gapzoo inspect and gapzoo plot, as a person runs them."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from worlds import ToySource, toy_archive

from gapzoo import cli
from gapzoo.commands import inspect
from gapzoo.data.archive import create
from gapzoo.data.summary import Row, summarise


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("look") / "toy.zarr", end="1980-12-31")


@pytest.fixture
def run(capsys):
    """Run a command; its exit code and what it printed."""

    def of(*arguments):
        code = cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out + err

    return of


def test_inspect_shows_what_a_person_asks_for(run, archive, tmp_path):
    code, out = run("inspect", archive.path, "--png", tmp_path / "t.png")
    assert code == 0 and (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    for part in (archive.hash, "CC0-1.0", "8 x 4", "1979-01-01 00:00 to 1980-12-31", "731 steps"):
        assert part in " ".join(out.split()), part
    for part in ("temperature", "0.2, 0.95", "surface_pressure", "hPa", "sea_ice_cover", "MB"):
        assert part in out, part
    assert "temperature@0.95" not in out and out.count("@") > 10, "a map of characters"
    code, out = run("inspect", archive.path, "--channels", "--no-map")
    assert code == 0 and out.count("temperature ") >= 2 and "@@" not in out


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([985.4], "985"),
        ([0.0922], "0.0922"),
        ([-0.0806, 0.09682], "-0.081..0.097"),
        ([0.048, 16.4], "0..16"),
        ([-0.004, 9.76], "0..9.8"),
        ([204.2, 285.0], "204..285"),
        ([3.6e-9], "3.6e-09"),
        ([2.0, None], "2"),
        ([None], "-"),
    ],
)
def test_numbers_are_as_short_as_they_tell(values, shown):
    assert inspect._range(values, 1.0) == shown


def test_names_are_whole_on_a_narrow_terminal(archive, capsys, monkeypatch):
    """Eight levels of a wind and the longest name of SPEEDY's fit 80 columns."""
    row = Row("10m_v_component_of_wind", None, "m/s", 0.0922, 4.86, 1.16)
    levels = np.array([0.025, 0.2, 0.95])
    wind = [Row("v_component_of_wind", k, "m/s", k / 10 - 0.08, 9 * k, 2 * k) for k in levels]
    found = replace(summarise(archive), state=(*wind, row))
    console = Console(width=80)
    console.print(inspect._table(found, channels=False))
    lines = capsys.readouterr().out.splitlines()
    assert any("10m_v_component_of_wind" in line and "1.16" in line for line in lines)
    assert any("0.025..0.95 (3)" in line and "m/s" in line for line in lines)


def test_inspect_says_what_is_unfinished(run, tmp_path):
    create(tmp_path / "part.zarr", ToySource().spec())
    code, out = run("inspect", tmp_path / "part.zarr")
    assert code == 0 and "0 of 7 shards" in out and "never written" in " ".join(out.split())
    code, out = run("inspect", tmp_path / "none.zarr")
    assert code == 2 and "no archive at" in " ".join(out.split())


def test_plot_a_field_and_a_difference(run, archive, tmp_path):
    picture = tmp_path / "a.png"
    arguments = ("plot", archive.path, "temperature@0.2", "--output", picture)
    code, out = run(*arguments, "--time", "1979-05-02")
    assert code == 0 and "temperature at 0.2, 1979-05-02 00:00" in " ".join(out.split())
    first = picture.read_bytes()
    code, out = run(*arguments, "--time", "1979-05-02", "--minus-time", "1979-05-02")
    assert code == 0 and "0 to 0 K, mean 0" in " ".join(out.split())
    assert first.startswith(b"\x89PNG") and picture.read_bytes() != first
    code, out = run(*arguments, "--level", "7")
    assert code == 0, "the level beside the name counts"
    code, out = run("plot", archive.path, "temperature")
    assert code == 2 and "take one of 0.2, 0.95" in " ".join(out.split())
