"""A summary says what was put in: statistics, gaps, joints, what is unfinished, the size."""

import numpy as np
import pandas as pd
import pytest
from worlds import NAMES, SPREAD, ToySource, fill, grid_of, toy_archive

from gapzoo.core import Channels
from gapzoo.data.archive import Archive, ArchiveSpec, create, write_shard
from gapzoo.data.summary import summarise


def test_of_a_finished_archive(tmp_path):
    archive = toy_archive(tmp_path / "toy.zarr", end="1980-12-31")
    found = summarise(archive)
    assert [(r.name, r.level) for r in found.state] == [
        ("temperature", 0.2), ("temperature", 0.95), ("surface_pressure", None),
    ]  # fmt: skip
    assert [r.units for r in found.state] == ["K", "K", "Pa"] and found.level_kind == "sigma"
    assert [r.mean for r in found.state] == pytest.approx(archive.array("mean"))
    assert all(r.std > s for r, s in zip(found.state, SPREAD, strict=True))
    assert found.step == pd.Timedelta(days=1) and not found.gaps and found.missing == 0
    assert found.runs == len(np.unique(archive.runs)) > 1
    assert found.shards == (7, 7) and found.hash == archive.hash
    files = [f for f in (tmp_path / "toy.zarr").rglob("*") if f.is_file()]
    assert found.bytes == sum(len(f.read_bytes()) for f in files)
    sst = found.forcing[0]
    assert (sst.name, sst.units, sst.change) == ("sea_surface_temperature", "K", None)
    weights = archive.grid.area_weights[:, None] / 32
    mean = (archive.read("forcing", np.arange(365))[:, 0] * weights).sum((1, 2)).mean()
    assert sst.mean == pytest.approx(mean, abs=0.3)


def test_of_one_that_is_being_built(tmp_path):
    source = ToySource()
    create(tmp_path / "part.zarr", source.spec())
    _, states, forcing = source.shard(0, np.zeros((3, 4, 8)))
    write_shard(tmp_path / "part.zarr", 0, states, forcing)
    found = summarise(Archive(tmp_path / "part.zarr"))
    assert found.shards == (1, 7) and found.state[0].mean is None and found.forcing[0].std is None


def test_gaps_are_found_and_joints_told_apart(tmp_path):
    times = pd.DatetimeIndex(["2000-01-01", "2000-01-02", "2000-01-03", "2000-01-07", "2000-01-08"])
    runs, grid = np.array([0, 0, 1, 2, 2]), grid_of()
    create(
        tmp_path / "g.zarr",
        ArchiveSpec(grid, Channels(NAMES, "sigma"), ("sea_ice_cover",), {}, times, runs),
    )
    found = summarise(Archive(tmp_path / "g.zarr"))
    assert found.gaps == ((times[2], times[3]),) and found.missing == 3 and found.runs == 3
    fill(tmp_path / "full.zarr", ToySource(end="1979-01-01"))
    assert summarise(Archive(tmp_path / "full.zarr")).step is None
