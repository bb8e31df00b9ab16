"""SPEEDY as a source: resumed after a kill it is the same to the bit; bad periods are refused."""

import numpy as np
import pandas as pd
import pytest
import speedy_runs

from gapzoo.core import GapzooError

pytestmark = pytest.mark.speedy


@pytest.fixture
def source(monkeypatch):
    """Three days of one segment, in shards of a day, after two days of spin-up."""
    shared = speedy_runs.model()
    from gapzoo.data.sources import speedy

    monkeypatch.setattr(speedy, "SHARD", 4)

    def make(**changes):
        days = {"start": "1979-01-01", "end": "1979-01-03", "spin_up_days": 2, **changes}
        made = speedy.SpeedySource(**days)
        made.model = shared
        return made

    return make


def test_resumed_after_a_kill_it_is_identical(source, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    segment = source().segments()[0]
    whole = list(source().blocks(segment, tmp_path / "a"))
    assert [shard for shard, _, _ in whole] == [0, 1, 2]
    killed = source().blocks(segment, tmp_path / "b")
    next(killed), next(killed)
    killed.close()  # shard 1 may be written or not: it is made again
    rest = list(source().blocks(segment, tmp_path / "b"))
    assert [shard for shard, _, _ in rest] == [1, 2]
    for (_, state, forcing), (_, state2, forcing2) in zip(whole[1:], rest, strict=True):
        np.testing.assert_array_equal(state, state2)
        np.testing.assert_array_equal(forcing, forcing2)


def test_frames_are_valid_at_their_times(source, tmp_path):
    """Forcing is the observed SST of each time; the second shard goes on from the first."""
    made = source(spin_up_days=1, end="1979-01-02")
    blocks = list(made.blocks(made.segments()[0], tmp_path))
    for shard, state, forcing in blocks:
        times = made.times[4 * shard : 4 * shard + 4]
        assert state.shape == (4, 37, 32, 64) and forcing.shape == (4, 2, 32, 64)
        np.testing.assert_array_equal(forcing[:, 0], made._ocean.sst(times))
    with np.load(tmp_path / "segment-0000.npz") as restart:
        assert pd.Timestamp(restart["time"][()]) == made.times[-1]


def test_years_without_sst_are_refused_by_date(source):
    for period, named in (
        ({"start": "2013-12-01", "end": "2014-01-02"}, "2014-01-02"),
        ({"start": "1978-12-31", "end": "1979-01-02"}, "1978-12-31"),
    ):
        with pytest.raises(
            GapzooError, match=f"no SST anomaly for {named}.*1979-01-01.*2013-12-31"
        ):
            source(**period).spec()
    free = source(start="1950-01-01", end="1950-01-02", sst="climatology")
    assert len(free.spec().times) == 8


def test_spec_describes_the_archive(source):
    spec = source().spec()
    assert spec.attributes["sigma_edges"] == [0, 0.05, 0.14, 0.26, 0.42, 0.6, 0.77, 0.9, 1]
    land = spec.static["land_sea_mask"]
    assert land.shape == (32, 64) and land.min() >= 0 and land.max() <= 1
    share = np.average(land.mean(1), weights=spec.grid.area_weights)
    assert share == pytest.approx(0.3, abs=0.03)
    ground = spec.static["geopotential_at_surface"]
    np.testing.assert_array_equal(ground, speedy_runs.model().surface_geopotential)


def test_a_year_ends_on_its_last_day():
    from gapzoo.data import SOURCES

    one = SOURCES.build("speedy", start="1990", end="1990").times
    assert str(one[0]) == "1990-01-01 00:00:00" and str(one[-1]) == "1990-12-31 18:00:00"
    assert SOURCES.build("speedy", start="1990-02", end="1990-02").times[-1].day == 28


def test_arguments_that_contradict_are_refused():
    from gapzoo.data import SOURCES

    with pytest.raises(GapzooError, match="'forecast'"):
        SOURCES.build("speedy", sst="forecast")
    with pytest.raises(GapzooError, match="swap"):
        SOURCES.build("speedy", start="1990-01-01", end="1980-01-01")
