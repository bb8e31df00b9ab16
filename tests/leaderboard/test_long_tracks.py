"""Seasonal and climate tracks on the toy world: rows of perfect, bad and unfit entries."""

import json

import numpy as np
import pandas as pd
import pytest
import zarr
from worlds import expect, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.module import world_of
from gapzoo.data.output import ForecastStore
from gapzoo.leaderboard import rows
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.tasks.climate import refer
from gapzoo.tasks.diagnostics import Diagnostics
from gapzoo.tasks.record import Recorder
from gapzoo.tasks.seasonal import NOMINAL, truth_months

SEASONAL = Protocol(
    name="seasonal-toy",
    track="seasonal",
    world="toy",
    period=["1979-01-01", "1981-12-31"],
    cases=5,
    members=3,
)
CLIMATE = Protocol(
    name="climate-toy", track="climate", world="toy", period=["1979-01-01", "1980-12-31"], cases=1
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three years of one run."""
    path = tmp_path_factory.mktemp("toy") / "toy.zarr"
    return toy_archive(path, end="1981-12-31", segment_shards=10)


def seasonal_run(archive, folder, members=3, noise=1.0):
    """A run whose members are the truth and noise."""
    world, g = world_of(archive), np.random.default_rng(0)
    times = pd.DatetimeIndex(["1979-05-01", "1980-05-01", "1981-05-01", "1979-11-01", "1980-11-01"])
    folder.mkdir()
    fields = Diagnostics(world)
    leads = [NOMINAL * (n + 1) for n in range(6)]
    store = ForecastStore(
        folder / "monthly.zarr", world, times, leads, members, channels=fields.channels
    )
    for time in times:
        truth = truth_months(archive, world, time, 6, 24)[1:]
        for lead, month in zip(leads, truth, strict=True):
            spread = noise * np.abs(month).mean((1, 2), keepdims=True) * 1e-3
            store.write(time, lead, month + spread * g.standard_normal((members, *month.shape)))


def test_a_nearly_perfect_season_has_skill_and_persistence_has_a_row(archive, tmp_path):
    seasonal_run(archive, tmp_path / "good", noise=0.01)
    row = rows.run(SEASONAL, archive, "folder", {"path": str(tmp_path / "good")})
    assert set(row["scores"]) == {"may_jja", "may_aso"}  # two years of November are too few
    assert row["scores"]["may_jja"]["acc"] > 0.9 and row["run"] == "good"
    assert len(row["initial_times"]) == 5 and "rpss" in row["metrics"]
    other = rows.run(SEASONAL, archive, "persistence", {})
    assert other["scores"]["may_jja"]["acc"] < row["scores"]["may_jja"]["acc"]
    rows.refuse_unlike(row, other)
    json.dumps(row)
    seasonal_run(archive, tmp_path / "fewer", members=2)
    fewer = rows.run(SEASONAL, archive, "folder", {"path": str(tmp_path / "fewer")})
    assert (row["members"], fewer["members"]) == (3, 2)
    rows.refuse_unlike(row, fewer)


def test_seasons_in_which_the_truth_goes_over_to_another_run_are_left_out(archive, tmp_path):
    """Runs of 480 days go over on 1980-04-25 and 1981-08-18, in three of the five seasons."""
    two = toy_archive(tmp_path / "two.zarr", end="1981-12-31", segment_shards=4)
    seasonal_run(archive, tmp_path / "good", noise=0.01)
    entry = {"path": str(tmp_path / "good")}
    with expect(GapzooError, "has 5 cases", "two.zarr give 2 starts"):
        rows.run(SEASONAL, two, "folder", entry)
    fewer = Protocol(**{**vars(SEASONAL), "cases": 2})
    found = rows.run(fewer, two, "folder", entry)["initial_times"]
    assert found == ["1980-11-01T00", "1979-05-01T00"]


def test_a_protocol_may_have_one_start_a_year(archive, tmp_path):
    """Runs of more starts serve; scores are those of the same starts among others."""
    seasonal_run(archive, tmp_path / "good", noise=0.01)
    one = Protocol(**{**vars(SEASONAL), "starts": ["05-01"], "cases": 3})
    assert one.hash != SEASONAL.hash
    found = rows.run(one, archive, "folder", {"path": str(tmp_path / "good")})
    whole = rows.run(SEASONAL, archive, "folder", {"path": str(tmp_path / "good")})
    assert found["scores"]["may_jja"]["acc"] == whole["scores"]["may_jja"]["acc"]
    assert len(found["initial_times"]) == 3


def test_runs_that_do_not_fit_the_protocol_are_refused(archive, tmp_path):
    seasonal_run(archive, tmp_path / "few", members=1)
    with expect(GapzooError, "has 1 members and 6 months", "has 3 members"):
        rows.run(SEASONAL, archive, "folder", {"path": str(tmp_path / "few")})
    with expect(GapzooError, "it is the folder of a run, or 'persistence'"):
        rows.run(SEASONAL, archive, "gap", {})
    with expect(GapzooError, "holds no run of gapzoo seasonal"):
        rows.run(SEASONAL, archive, "folder", {"path": str(tmp_path)})
    wrong = Protocol(**{**vars(SEASONAL), "cases": 4})
    with expect(GapzooError, "has 4 cases", "give 5 starts"):
        rows.run(wrong, archive, "persistence", {})


def test_the_archive_itself_has_a_perfect_climate(archive, tmp_path):
    row = rows.run(CLIMATE, archive, "archive", {"path": str(archive.path)})
    scores = row["scores"]["climate"]
    assert scores["bias_relative"] == 0 and scores["variance_ratio"] == 1
    assert abs(scores["northern_annular_pattern"] - 1) < 1e-6
    assert {line["name"] for line in row["series"]} == {"run", "reference"}


def test_another_realisation_and_a_shorter_run(archive, tmp_path):
    """Another seed: small biases, variances near one; a run of one year is no run of two."""
    world = world_of(archive)
    other = toy_archive(tmp_path / "other.zarr", seed=5)
    recorder = Recorder(tmp_path / "run", world, pd.Timestamp("1979-01-01"), 24, 1, 24)
    refer(recorder, other)
    kept = {"reference": str(tmp_path / "kept")}
    row = rows.run(CLIMATE, archive, "folder", {"path": str(tmp_path / "run"), **kept})
    scores = row["scores"]["climate"]
    assert 0.01 < scores["bias_relative"] < 0.3 and abs(scores["variance_ratio"] - 1) < 0.1
    assert list((tmp_path / "kept").iterdir())
    itself = Recorder(tmp_path / "itself", world_of(other), pd.Timestamp("1979-01-01"), 24, 1, 24)
    refer(itself, archive)  # by another climatology: a mean state is a mean state
    row = rows.run(CLIMATE, archive, "folder", {"path": str(tmp_path / "itself"), **kept})
    scores = row["scores"]["climate"]
    assert scores["bias_relative"] < 1e-4 and scores["annual_cycle_error"] < 1e-4
    short = Recorder(tmp_path / "short", world, pd.Timestamp("1979-01-01"), 12, 1, 24)
    refer(short, other)
    with expect(GapzooError, "covers 1979-01 to 1979-12", "1980-12"):
        rows.run(CLIMATE, archive, "folder", {"path": str(tmp_path / "short"), **kept})
    zarr.open_group(tmp_path / "run" / "series.zarr").attrs["hours"] = 12
    with expect(GapzooError, "has steps of 12 h", "simulate with hours=24"):
        rows.run(CLIMATE, archive, "folder", {"path": str(tmp_path / "run"), **kept})
