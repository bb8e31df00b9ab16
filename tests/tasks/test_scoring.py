"""Scores on many processors are those of one to the bit; a worker that is killed loses nothing."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from clusters import cluster
from worlds import toy_archive

import gapzoo
from gapzoo import cli
from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.module import world_of
from gapzoo.data.output import ForecastStore
from gapzoo.data.view import as_dataset, mean_dataset
from gapzoo.data.workers import Workers
from gapzoo.evaluators import climatologies
from gapzoo.tasks import scoring

TIMES = pd.date_range("1980-01-01", periods=40, freq="3D")
LEADS = (24, 48)
METRICS = ["rmse", "crps", "acc", "extremes", "spectrum", "rank_histogram", "drift"]
"""By sum, by maximum, with axes of their own, and one that uses the lead up."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.zarr"
    toy_archive(path, end="1980-12-31")
    return Archive(path)


@pytest.fixture(scope="module")
def store(archive, tmp_path_factory):
    """Three members: the truth and noise that grows with the lead."""
    path, rng = tmp_path_factory.mktemp("forecasts") / "f.zarr", np.random.default_rng(0)
    store = ForecastStore(path, world_of(archive), TIMES, LEADS, 3)
    for time in TIMES:
        for lead in LEADS:
            at = archive.times.get_indexer([time + pd.Timedelta(hours=lead)])
            noise = rng.normal(size=(3, *store.world.shape)) * lead / 24
            store.write(time, lead, archive.read("state", at) + noise)
    return path


def opened(store, **options) -> xr.Dataset:
    return xr.open_zarr(store, decode_timedelta=True, **{"chunks": None, **options})


def given(archive) -> dict:
    regions = ["global", "tropics"]
    return {"climatology": mean_dataset(archive), "regions": regions, "seasons": ["all", "DJF"]}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("time", [None, 3])
def test_threads_give_the_scores_of_one_to_the_bit(archive, store, threads, time):
    """Also where chunks of three initial times do not end with the forecast."""
    forecast = opened(store, chunks={"time": time} if time else None)
    expected = gapzoo.evaluate(forecast, as_dataset(archive), METRICS, **given(archive))
    steps, workers = [], Workers(threads, threads=True)
    found = scoring.evaluate(
        workers, forecast, as_dataset(archive), METRICS, **given(archive),
        progress=lambda *step: steps.append(step))  # fmt: skip
    xr.testing.assert_identical(found, expected)
    assert steps[-1] == ((14, 14) if time else (40, 40)) and len(steps) <= scoring.JOBS


def test_chunks_lie_where_those_of_all_variables_end(store):
    forecast = opened(store)
    assert scoring.chunks(forecast) == [slice(n, n + 1) for n in range(40)]
    lazy = forecast.chunk({"time": 4})
    lazy["temperature"] = lazy["temperature"].chunk({"time": 6})
    assert scoring.chunks(lazy) == [slice(0, 12), slice(12, 24), slice(24, 36), slice(36, 40)]


def test_what_one_chunk_lacks_is_told(archive, store):
    """An error of a job is the error of the whole."""
    short = as_dataset(archive).sel(time=slice("1980-03-01"))
    with pytest.raises(GapzooError, match="no time 1980-03-"):
        scoring.evaluate(Workers(2, threads=True), opened(store), short)


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_loses_nothing(archive, store):
    """An archive, a climatology in memory and a lazy mask travel to the workers."""
    truth, steps = as_dataset(archive), []
    options = {**given(archive), "mask": truth["temperature"].chunk() > 200}
    options["climatology"] = climatologies.mean(truth, "1979", "1980")
    forecast = opened(store)[["temperature"]]
    expected = gapzoo.evaluate(forecast, truth, METRICS, **options)
    with cluster() as found:
        found.kill_first(lambda: len(steps) > 2)
        scores = scoring.evaluate(
            Workers(scheduler=found.address), forecast, truth, METRICS, **options,
            progress=lambda *step: steps.append(step))  # fmt: skip
        assert found.lost, "it was killed with chunks in hand"
        assert found.workers[0].wait(60) == -9
        xr.testing.assert_identical(scores, expected)


@pytest.mark.slow
def test_the_command_on_a_cluster(archive, store, tmp_path, monkeypatch):
    """Relative paths are found by workers that were started elsewhere."""
    with cluster() as found:
        monkeypatch.chdir(store.parent)
        for name, more in {"one": [], "two": ["--scheduler", found.address]}.items():
            output = ["--output", f"{tmp_path}/{name}"]
            assert cli.main(["evaluate", store.name, str(archive.path), *output, *more]) == 0
    one, two = (xr.load_dataset(tmp_path / f"{name}.scores.nc") for name in ("one", "two"))
    xr.testing.assert_identical(one, two)
