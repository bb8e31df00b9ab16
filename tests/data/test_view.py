"""An archive as xarray sees it: every way of asking gives what the archive reads."""

import numpy as np
import pytest
from worlds import COSINE, MEAN, NAMES, ToySource

from gapzoo.core import Channels
from gapzoo.data.archive import Archive, create, write_array, write_shard
from gapzoo.data.view import as_dataset, mean_dataset


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "toy.zarr"
    source = ToySource(end="1979-03-31")
    create(path, source.spec())
    e = np.zeros((3, 4, 8))
    for shard in range(source.spec().shards):
        e, states, forcing = source.shard(shard, e)
        write_shard(path, shard, states, forcing)
    coefficients = np.zeros((3, 3, 4, 8), np.float32)
    coefficients[0], coefficients[1] = MEAN[:, None, None], COSINE[:, None, None]
    write_array(path, "climatology", coefficients, ("harmonic", "channel", "latitude", "longitude"))
    return Archive(path)


def test_values_and_names_are_the_archives(archive):
    data, states = as_dataset(archive), archive.read("state", np.arange(90))
    assert data["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert data["level"].values.tolist() == [0.2, 0.95] and data.attrs["level_kind"] == "sigma"
    assert data["temperature"].attrs["units"] == "K"
    np.testing.assert_array_equal(data["temperature"], states[:, :2])
    np.testing.assert_array_equal(data["surface_pressure"], states[:, 2])
    sst = archive.read("forcing", np.arange(90), [0])[:, 0]
    np.testing.assert_array_equal(data["sea_surface_temperature"], sst)


@pytest.mark.parametrize(
    "at",
    [
        {"time": 5, "level": 1},
        {"time": [7, 3, 80], "level": [1]},
        {"time": slice(2, 60, 7), "latitude": slice(None, None, -1), "longitude": [6, 0]},
        {"time": slice(3, 3)},
        {"level": 0, "latitude": 2, "longitude": 3},
    ],
)
def test_any_part_is_that_part(archive, at):
    whole = as_dataset(archive)["temperature"].load()
    part = as_dataset(archive)["temperature"].isel(at)
    np.testing.assert_array_equal(part.values, whole.isel(at).values)


def test_only_what_is_asked_for_is_read(archive, monkeypatch):
    seen, read = [], archive.read

    def recorded(name, at, keep=None):
        seen.append((name, at.tolist(), keep))
        return read(name, at, keep)

    monkeypatch.setattr(archive, "read", recorded)
    as_dataset(archive)["temperature"].isel(time=[4, 9], level=1).load()
    assert seen == [("state", [4, 9], [NAMES.index("temperature@0.95")])]


def test_fields_that_are_made_and_levels_that_only_some_have(archive):
    channels = Channels(["temperature@500", "geopotential@850", "surface_pressure"])

    def make(states, labels):
        made = {"temperature@500": states[:, 0] + 1, "geopotential@850": 9.8 * states[:, 1],
                "surface_pressure": states[:, 2]}  # fmt: skip
        return np.stack([made[label] for label in labels], 1)

    data, states = as_dataset(archive, channels, make), archive.read("state", np.arange(90))
    assert data.attrs["channels"] == channels.labels and data["level"].values.tolist() == [500, 850]
    np.testing.assert_allclose(data["temperature"].sel(level=500), states[:, 0] + 1)
    assert data["temperature"].sel(level=850).isnull().all()
    np.testing.assert_allclose(data["geopotential"].sel(level=850), 9.8 * states[:, 1], rtol=1e-6)


def test_the_climatology_lies_at_the_archives_times(archive):
    data = mean_dataset(archive)
    day = np.arange(90)[:, None, None, None]
    wave = np.cos(2 * np.pi * day / 365.25)
    expected = (MEAN[:2, None, None] + COSINE[:2, None, None] * wave) * np.ones((4, 8))
    np.testing.assert_allclose(data["temperature"].values, expected, rtol=1e-6)
