"""Observations drawn from an archive: the truth plus errors of their size, read back as drawn."""

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import expect, toy_archive

from gapzoo import cli
from gapzoo.core import GapzooError
from gapzoo.data.observations import nature, operator_for, read_observations
from gapzoo.data.observations.nature import observe


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("nature") / "toy.zarr")


def test_departures_from_the_truth_have_the_errors_they_state(archive):
    positions = np.arange(40, 80)
    found = observe(archive, positions, fraction=0.5, seed=3)
    assert len(found) == 40 * 3 * 16 and found.level_kind == "sigma"
    scaled = []
    for position in positions:
        time = archive.times[position]
        here = found[(found.table["time"] == time).to_numpy()]
        truth = torch.from_numpy(archive.read("state", np.array([position])))[0]
        seen = operator_for(here, archive.grid, archive.channels)(truth).numpy()
        scaled.append((here.table["value"] - seen) / here.table["error"])
    every = np.concatenate(scaled)
    assert every.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(every)))
    assert abs(every.mean()) < 4 / np.sqrt(len(every))


def test_periods_that_overlap_agree_and_seeds_differ(archive):
    long, short = (observe(archive, np.arange(a, 12), seed=1) for a in (5, 9))
    tail = long.table.iloc[-len(short) :].reset_index(drop=True)
    pd.testing.assert_frame_equal(tail, short.table)
    assert not np.allclose(observe(archive, np.arange(9, 12), seed=2).table["value"], tail["value"])


def test_some_variables_of_all(archive):
    found = observe(archive, np.arange(2), fraction=0.5, variables=["surface_pressure"]).table
    assert set(found["variable"]) == {"surface_pressure"} and found["level"].isna().all()
    whole = observe(archive, np.arange(2), fraction=0.5)
    assert len(whole) == 3 * len(found)


def test_random_points_on_the_levels(archive):
    """Between the grid points, on the channels' own levels: a table can say where they are."""
    table = observe(archive, np.arange(2), "random_points", fraction=0.5, between=False).table
    assert len(table) == 2 * 48 and table["latitude"].nunique() == 48
    levels = table.groupby("variable")["level"].unique()
    assert (
        sorted(levels["temperature"]) == [0.2, 0.95] and np.isnan(levels["surface_pressure"]).all()
    )


def test_the_command_writes_what_is_read_back(archive, tmp_path, capsys):
    out = tmp_path / "new" / "obs.parquet"
    words = [
        "observe",
        "count=4",
        "apart=1e6",
        "--archive",
        str(archive.path),
        "--output",
        str(out),
    ]
    words += ["--start", "1980-02-01", "--end", "1980-02-04", "--network", "radiosondes"]
    assert cli.main([*words, "--every", "48"]) == 0
    assert "24 observations of 2 times" in " ".join(capsys.readouterr().out.split())
    table = read_observations(out)
    assert table.level_kind == "sigma" and set(table.table["type"]) == {"radiosondes"}
    assert table.table["time"].nunique() == 2


def test_what_cannot_be_is_named(archive):
    here = np.arange(3)
    with expect(GapzooError, "network 'random_columns' has no 'fractoin'", "'fraction'"):
        observe(archive, here, fractoin=0.1)
    with expect(GapzooError, "between levels"):
        observe(archive, here, "random_points", fraction=0.5)
    with expect(GapzooError, "no step"):
        observe(archive, here[:0])
    assert cli.main(["observe", "--archive", str(archive.path), "--start", "1990", "--end", "1991"])


def test_a_wind_of_nearly_nothing_is_read_back_as_what_it_is():
    """Its relative difference is large, its difference a millionth of its error."""
    seen, error = torch.tensor([-0.0062208]), torch.ones(1)
    nature._require_same(seen + 1e-6, seen, error, "random_columns")
    with expect(GapzooError, "between levels"):
        nature._require_same(seen + 0.1, seen, error, "random_columns")
