"""The archive: raw memory equals zarr's own reading; what was never written is refused."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from worlds import FORCINGS, NAMES, ToySource, expect, fill, toy_archive

from gapzoo.core import Channels, GapzooError, MemberGenerator
from gapzoo.data.archive import SHARD, Archive, create, write_shard
from gapzoo.data.forcing import observed
from gapzoo.data.module import world_of
from gapzoo.data.summary import summarise
from gapzoo.data.view import as_dataset
from gapzoo.tasks.initial import Truth

STEPS = 2 * SHARD + 11


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three shards, the last of 11 steps."""
    path = tmp_path_factory.mktemp("archive") / "toy.zarr"
    toy_archive(path, end=str(pd.Timestamp("1979-01-01") + pd.Timedelta(days=STEPS - 1)))
    return path


@pytest.fixture(scope="module")
def written(path):
    """What the source gave."""
    source = ToySource(end=str(Archive(path).times[-1]))
    carried, blocks = np.zeros((3, *source.grid.shape)), []
    for shard in range(3):
        start = carried if shard % 2 else np.zeros_like(carried)  # segments of two shards
        carried, states, forcing = source.shard(shard, start)
        blocks.append((states, forcing.astype(np.float32)))
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def test_raw_memory_equals_zarr_and_what_was_written_byte_for_byte(path, written):
    archive = Archive(path)
    every = np.arange(STEPS)
    for name, values in zip(("state", "forcing"), written, strict=True):
        raw = archive.read(name, every)
        assert archive._readers[name].file(2) is not None
        assert raw.tobytes() == np.asarray(zarr.open_group(path)[name][:]).tobytes()
        assert raw.tobytes() == values.tobytes()


def test_any_order_and_any_channels(path, written):
    positions = np.array([STEPS - 1, 0, SHARD, SHARD - 1, SHARD, STEPS - 11])
    read = Archive(path).read("state", positions, [2, 0])
    assert np.array_equal(read, written[0][positions][:, [2, 0]])


def test_a_store_whose_files_are_not_at_hand_is_read_the_same(path, written, monkeypatch):
    monkeypatch.setattr("gapzoo.data.reading.ShardReader._open", lambda *_: None)
    positions = np.array([STEPS - 1, 5, SHARD])
    assert np.array_equal(Archive(path).read("state", positions), written[0][positions])
    found = Archive(path).read("state", positions, [2, 0])
    assert np.array_equal(found, written[0][positions][:, [2, 0]])


def test_an_archive_that_was_sent_to_another_process_reads_the_same(path, written):
    archive = Archive(path)
    archive.read("state", np.array([3]))  # its files are open
    sent = pickle.loads(pickle.dumps(archive))  # noqa: S301
    assert np.array_equal(sent.read("state", np.array([130, 5])), written[0][[130, 5]])


def test_open_files_are_bounded_and_threads_may_share_a_reader(path, written, monkeypatch):
    monkeypatch.setattr("gapzoo.data.reading.OPEN_FILES", 1)
    archive = Archive(path)
    before = len(os.listdir("/proc/self/fd"))
    orders = [np.random.default_rng(n).integers(0, STEPS, 400) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda rows: archive.read("state", rows), orders))
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    for rows, states in zip(orders, found, strict=True):
        assert np.array_equal(states, written[0][rows])


def test_metadata_survive(path):
    archive, source = Archive(path), ToySource()
    assert archive.grid == source.grid
    assert archive.channels == Channels(NAMES, "sigma")
    assert archive.forcing_channels == list(FORCINGS)
    assert archive.times.equals(pd.date_range("1979-01-01", periods=STEPS, freq="D"))
    assert archive.step == pd.Timedelta(days=1)
    assert np.array_equal(archive.static("land_sea_mask"), source.land())
    assert archive.runs.tolist() == [0] * 240 + [1] * 11


def test_xarray_opens_it_with_names_and_times(path, written):
    with xr.open_zarr(path, consolidated=False) as data:
        assert data.state.dims == ("time", "channel", "latitude", "longitude")
        assert data.forcing.dims == ("time", "forcing_channel", "latitude", "longitude")
        assert data.climatology.dims == ("harmonic", "channel", "latitude", "longitude")
        assert data.static.dims == ("static_channel", "latitude", "longitude")
        day = data.state.sel(time="1979-05-02", latitude=67.5, longitude=90.0)
        position = (pd.Timestamp("1979-05-02") - pd.Timestamp("1979-01-01")).days
        assert np.array_equal(day.values.squeeze(), written[0][position, :, 3, 2])
        assert data.attrs["channels"] == list(NAMES) and data.attrs["units"] == ["K", "K", "Pa"]


def test_periods(path):
    archive = Archive(path)
    assert archive.indices("1979-01-02", "1979-01-04").tolist() == [1, 2, 3]
    assert archive.indices("1979-02", "1979-02", every=10).tolist() == [31, 41, 51]
    assert len(archive.indices(None, None)) == STEPS
    with expect(GapzooError, "toy.zarr has no step from 1985", "covers 1979-01-01 to 1979-09-08"):
        archive.indices("1985", "1986")


@pytest.fixture(scope="module")
def thrice(tmp_path_factory):
    """Three realisations of 240 days, of two shards and one run each."""
    path = tmp_path_factory.mktemp("thrice") / "thrice.zarr"
    fill(path, ToySource(end="1979-08-28", realisations=3))
    return Archive(path)


def test_periods_of_several_realisations_are_those_of_all(thrice):
    every = [240 * n + day for n in range(3) for day in (1, 2, 3)]
    assert thrice.indices("1979-01-02", "1979-01-04").tolist() == every
    assert len(thrice.indices(None, "1979")) == 720 and thrice.realisations == 3
    assert thrice.indices("1979-08-27", None, every=2).tolist() == [238, 478, 718]
    with expect(GapzooError, "no step from 1980", "covers 1979-01-01 to 1979-08-28"):
        thrice.indices("1980", "1981")
    assert thrice.step == pd.Timedelta(days=1)
    summary = summarise(thrice)
    assert summary.step == pd.Timedelta(days=1) and (summary.gaps, summary.runs) == ((), 3)


def test_several_realisations_are_no_truth(thrice, path):
    """Nowhere is a state looked up by its time, nor are fields interpolated between times."""
    world, day = world_of(Archive(path)), pd.Timestamp("1979-03-01")
    streams = MemberGenerator(seed=0, members=2)
    for use in (
        lambda: thrice.find([day]),
        lambda: Truth(thrice, world).states(day, streams),
        lambda: observed(thrice, world),
        lambda: as_dataset(thrice),
    ):
        with expect(GapzooError, "thrice.zarr holds 3 realisations; take one of a single"):
            use()
    assert Archive(path).find(["1979-01-03", "2001-01-01"]).tolist() == [2, -1]


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("missing", ["rest of a shard", "whole shard"])
def test_steps_never_written_are_refused(tmp_path, monkeypatch, local, missing):
    source, path = ToySource(end="1979-09-08"), tmp_path / "holes.zarr"
    create(path, source.spec())
    _, states, forcing = source.shard(0, np.zeros((3, 4, 8)))
    count = SHARD if missing == "whole shard" else 50
    write_shard(path, 0, states[:count], forcing[:count])
    if not local:
        monkeypatch.setattr("gapzoo.data.reading.ShardReader._open", lambda *_: None)
    archive = Archive(path)
    assert np.array_equal(archive.read("state", np.array([count - 1]))[0], states[count - 1])
    for name in ("state", "forcing"):
        with expect(GapzooError, f"step {count} of", name, "never written", "build-data"):
            archive.read(name, np.array([0, count]))


def test_a_shard_that_is_cut_off_is_refused(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "cut.zarr")
    file = copy / "state" / "c" / "1" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(GapzooError, match=r"step 120 of .*state"):
        Archive(copy).read("state", np.array([SHARD]))
    file.write_bytes(b"")
    with pytest.raises(GapzooError, match=r"step 120 of .*state"):
        Archive(copy).read("state", np.array([SHARD]))


def test_laying_out_again_keeps_what_is_there(path, written):
    create(path, ToySource(end=str(Archive(path).times[-1])).spec())
    assert np.array_equal(Archive(path).read("state", np.arange(3)), written[0][:3])


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"end": "1979-03-01"}, "steps"), ({"names": NAMES[:2]}, "channels")],
)
def test_another_archive_in_the_same_place_is_refused(path, change, named):
    with expect(GapzooError, "holds another archive", f"'{named}'", "--output", "--folder"):
        create(path, ToySource(**{"end": str(Archive(path).times[-1])} | change).spec())


def test_another_grid_or_calendar_in_the_same_place_is_refused(path):
    last = str(Archive(path).times[-1])
    with expect(GapzooError, "holds another archive"):
        create(path, ToySource(end=last, height=6).spec())
    with expect(GapzooError, "holds another archive"):
        half = pd.Timestamp("1979-01-01") + pd.Timedelta(days=STEPS / 2 - 1)
        create(path, ToySource(end=str(half), hours=12).spec())


def test_times_off_the_hour_are_refused(tmp_path):
    spec = ToySource(end="1979-01-05").spec()
    late = replace(spec, times=spec.times + pd.Timedelta(minutes=30))
    with expect(GapzooError, "off the hour: 1979-01-01 00:30:00"):
        create(tmp_path / "late.zarr", late)
    assert not (tmp_path / "late.zarr").exists()


def test_the_step_is_the_shortest_where_a_calendar_leaves_a_day_out(tmp_path):
    spec = ToySource(end="1979-01-05").spec()
    leap = pd.DatetimeIndex(["1980-02-28", *pd.date_range("1980-03-01", periods=4)])
    create(tmp_path / "leap.zarr", replace(spec, times=leap))
    assert Archive(tmp_path / "leap.zarr").step == pd.Timedelta(days=1)
    create(tmp_path / "one.zarr", replace(spec, times=leap[:1], runs=spec.runs[:1]))
    with expect(GapzooError, "one.zarr has one step"):
        _ = Archive(tmp_path / "one.zarr").step


def test_what_is_no_archive_is_refused(tmp_path):
    with expect(GapzooError, "no archive at", "none.zarr", "gapzoo build-data"):
        Archive(tmp_path / "none.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with expect(GapzooError, "other.zarr is no gapzoo archive", "gapzoo build-data"):
        Archive(tmp_path / "other.zarr")
    (tmp_path / "file.zarr").write_text("not a store")
    with expect(GapzooError, "file.zarr"):
        Archive(tmp_path / "file.zarr")


def test_unfinished_archives_and_unknown_fields_are_named(tmp_path):
    fill(tmp_path / "raw.zarr", ToySource(end="1979-01-05"))
    archive = Archive(tmp_path / "raw.zarr")
    with expect(GapzooError, "has no 'climatology'", "build-data"):
        archive.array("climatology")
    with expect(GapzooError, "'land_mask'; did you mean 'land_sea_mask'?"):
        archive.static("land_mask")


def test_the_hash_tells_data_apart(path, tmp_path):
    same = toy_archive(tmp_path / "same.zarr", end=str(Archive(path).times[-1]))
    other = toy_archive(tmp_path / "other.zarr", end=str(Archive(path).times[-1]), seed=1)
    less = toy_archive(tmp_path / "less.zarr", end="1979-05-30")
    assert same.hash == Archive(path).hash
    assert len({same.hash, other.hash, less.hash}) == 3
