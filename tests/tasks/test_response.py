"""gapzoo response: changes that were put into records come out, beside a reference's."""

import numpy as np
import pandas as pd
import pytest
from worlds import expect, toy_archive

from gapzoo import cli
from gapzoo.core import GapzooError, Grid
from gapzoo.data.module import Reader, world_of
from gapzoo.tasks.climate import refer
from gapzoo.tasks.record import Recorder
from gapzoo.tasks.response import Change, change, scores

START, MONTHS = pd.Timestamp("1979-01-01"), 24
LABEL = "lowest_level_temperature"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def runs(archive, tmp_path_factory):
    """The archive's two years, and the same 2 K and 3 K warmer, growing towards the north."""
    folder, world = tmp_path_factory.mktemp("runs"), world_of(archive)
    reader, t = Reader(archive, world), world.channels.of("temperature")
    refer(Recorder(folder / "control", world, START, MONTHS, 1, 24), archive)
    shape = pattern(world.grid)[:, None]
    for warmer in (2, 3):
        recorder = Recorder(folder / f"warm{warmer}", world, START, MONTHS, 1, 24)
        for row in range(1, len(archive.times)):
            physical = reader.physical(np.array([row]))
            physical[:, t] += warmer * shape
            recorder.add(
                archive.times[row], physical, world.normalise(physical, archive.times[[row]])
            )
    return folder


def pattern(grid):
    """(H,) 1 at the south to 2 at the north."""
    return 1 + np.linspace(0, 1, grid.shape[0]).astype(np.float32)


def test_a_known_warming_comes_out(runs, archive):
    found = change(runs / "warm3", runs / "control", skip=0)
    known = np.broadcast_to(3 * pattern(found.grid)[:, None], found.grid.shape)
    np.testing.assert_allclose(found.mean[LABEL], known, atol=2e-3)
    np.testing.assert_allclose(found.mean["surface_pressure"], 0, atol=1e-3)
    assert list(found.years) == [1979, 1980] and found.units[LABEL] == "K"
    assert list(change(runs / "warm3", runs / "control", skip=1).years) == [1980]


def test_half_as_much_again_as_the_reference(runs):
    both = [change(runs / f"warm{w}", runs / "control", skip=0) for w in (3, 2)]
    found = scores(*both)[LABEL]
    assert abs(found["amplitude"] - 1.5) < 1e-3 and abs(found["pattern"] - 1) < 1e-5
    assert abs(found["error"] - 0.5) < 1e-3 and found["noise"] < 1e-3
    assert abs(found["mean"] / found["reference_mean"] - 1.5) < 1e-3


def noisy(seed, years=40, scale=0.5):
    """Changes of 1 everywhere whose years differ by independent noise."""
    grid = Grid(tuple(np.linspace(-80, 80, 8)), tuple(np.arange(16) * 22.5))
    field = 1 + scale * np.random.default_rng(seed).standard_normal((years, *grid.shape))
    return Change({"x": field}, {"x": "K"}, grid, np.arange(years))


def test_an_error_of_the_noise_is_what_chance_gives():
    """Two models of the same response: their error is the noise of both, on average."""
    pairs = [scores(noisy(n), noisy(100 + n))["x"] for n in range(10)]
    ratio = np.mean([p["error"] for p in pairs]) / np.mean([p["noise"] for p in pairs])
    assert abs(ratio - 1) < 0.1
    assert np.mean([p["noise"] for p in pairs]) == pytest.approx(0.5 * (2 / 40) ** 0.5, rel=0.05)


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with expect(GapzooError, "holds no whole month of a run"):
        change(tmp_path, runs / "control")
    with expect(GapzooError, "24 months in common; after 2 years no whole one is left"):
        change(runs / "warm2", runs / "control", skip=2)
    one, other = noisy(0), noisy(1)
    with expect(GapzooError, "have no field in common: x, y"):
        scores(one, Change({"y": other.fields["x"]}, {"y": "K"}, other.grid, other.years))
    small = Grid(one.grid.latitude[:4], one.grid.longitude)
    with expect(GapzooError, "a grid of (8, 16) and one of (4, 16)"):
        scores(one, Change({"x": other.fields["x"][:, :4]}, {"x": "K"}, small, other.years))


def test_the_command_prints_and_writes_a_page(runs, tmp_path, capsys):
    folders = [str(runs / name) for name in ("warm3", "control", "warm2", "control")]
    page = tmp_path / "page.html"
    words = ["response", *folders[:2], "--reference", *folders[2:], "--output", str(page)]
    assert cli.main(words) == 0
    text = page.read_text()
    assert "1980 to 1980" in text and "Zonal means" in text and text.count("<img") > 2
    assert "1.50" in capsys.readouterr().out
    assert cli.main(["response", *folders[:2], "--skip", "5"]) == 2
