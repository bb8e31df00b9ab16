"""SPEEDY in one batch: the ordinary integration but for rounding, resumed by it and by itself."""

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest
import speedy_runs

pytestmark = pytest.mark.speedy
SOON = {"u": 1e-3, "v": 1e-3, "T": 1e-3, "q": 1e-6, "ps": 0.1}
"""Largest area-weighted rms difference to the ordinary integration after six hours."""
CLOSE = {"u": 0.05, "v": 0.05, "T": 0.05, "q": 3e-5, "ps": 20.0}
"""The same over a day: a convective column may have switched a step earlier or later."""
GROUPS = {"u": slice(0, 8), "v": slice(8, 16), "T": slice(16, 24), "q": slice(24, 32), "ps": 32}
HALF = pd.Timedelta(hours=12)
APART = pd.Timestamp("1991-07-01") - pd.Timestamp("1990-01-01")
RUNS = 3
"""Of every batch here, so that it is compiled once."""


@pytest.fixture(scope="module")
def together():
    model = speedy_runs.model()
    from gapzoo.speedy.batch import Together

    return Together(model, 4)


def sea(frames: int) -> np.ndarray:
    return np.repeat(speedy_runs.sea(), frames, 0)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Frames (T, C, H, W) alike but for rounding, which grows."""
    weights = speedy_runs.model().grid.area_weights[:, None]
    square = (np.asarray(found, float) - expected) ** 2 * weights
    for bounds, part in ((SOON, square[:1]), (CLOSE, square)):
        rms = {n: float(np.sqrt(part[:, rows].mean())) for n, rows in GROUPS.items()}
        assert all(rms[n] <= bounds[n] for n in bounds), rms


@cache
def ordinary():
    """A run a day after rest, another at another date, and the frames of the day after each."""
    dates = (pd.Timestamp("1990-01-01"), pd.Timestamp("1991-07-01"))
    begun = [speedy_runs.model().start(date, seed) for seed, date in enumerate(dates)]
    begun = [speedy_runs.advance(run, 4)[0] for run in begun]
    return begun, [speedy_runs.advance(run, 4) for run in begun]


@pytest.fixture(scope="module")
def advanced(together):
    """Runs at two dates, of 4, 2 and no frames, side by side."""
    from gapzoo.speedy.batch import stacked

    first, second = ordinary()[0]
    begun = [first, second, second]
    runs, frames = together.advance(stacked(begun), [sea(4), sea(2), sea(0)])
    return begun, runs, np.asarray(frames)


def test_runs_of_a_batch_are_those_of_their_own_but_for_rounding(advanced):
    (after, first), (_, second) = ordinary()[1]
    _, runs, frames = advanced
    assert frames.shape == (4, RUNS, 37, 32, 64) and frames.dtype == np.float32
    assert_close(frames[:, 0], first)
    assert_close(frames[:2, 1], second[:2])
    for row, expected in ((0, first[0]), (1, second[0])):  # near the ground, and rain
        np.testing.assert_allclose(frames[0, row, 33:36], expected[33:36], atol=0.05)
        np.testing.assert_allclose(frames[0, row, 36], expected[36], atol=1e-5)
    split = runs.split()
    assert split[0].time == after.time and split[1].time == after.time - HALF + APART
    assert_close(speedy_runs.model().decode(split[0])[None], frames[3:, 0, :33])
    steps = [int(run.physics["_shortwave_rad"].step) for run in (split[0], after)]
    assert steps[0] == steps[1], "radiation is due when it is in a run alone"


def test_a_run_without_frames_left_waits_unchanged(advanced):
    import jax

    begun, runs, _ = advanced
    before, after = begun[2], runs.split()[2]
    assert after.time == before.time
    leaves = jax.tree.leaves((before.dynamics, before.physics))
    for old, new in zip(leaves, jax.tree.leaves((after.dynamics, after.physics)), strict=True):
        np.testing.assert_array_equal(np.asarray(old), new)


def test_a_run_is_the_same_to_the_bit_whatever_the_others_do(together, advanced):
    from gapzoo.speedy.batch import stacked

    begun, _, frames = advanced
    other = stacked([begun[0], begun[0], begun[1]])
    _, again = together.advance(other, [sea(4), sea(1), sea(3)])
    np.testing.assert_array_equal(np.asarray(again)[:, 0], frames[:, 0])


@pytest.fixture
def source(monkeypatch, together):
    """Segments of two, two and one day, in shards of a day, after a day of spin-up."""
    shared = speedy_runs.model()
    from gapzoo.data.sources import speedy

    monkeypatch.setattr(speedy, "SHARD", 4)
    days = {"start": "1979-01-01", "end": "1979-01-05", "spin_up_days": 1, "segment_shards": 2}
    made = speedy.SpeedySource(**days)
    made.model, made.together = shared, together
    return made


def by_shard(rounds) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    return {block.shard: (block.state, block.forcing) for some in rounds for block in some}


def test_resumed_after_a_kill_a_batch_is_identical(source, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    segments = source.segments()
    whole = by_shard(source.rounds(segments, tmp_path / "a"))
    assert sorted(whole) == [0, 1, 2, 3, 4]
    killed = source.rounds(segments, tmp_path / "b")
    made = [next(killed) for _ in range(3)]  # the spin-up, a day of each, the next of two
    assert [[block.shard for block in some] for some in made] == [[], [0, 2, 4], [1, 3]]
    killed.close()  # restart points stand behind the first day
    segments[2].marker(tmp_path / "b").write_text("5")
    rest = by_shard(source.rounds(segments, tmp_path / "b"))
    assert sorted(rest) == [1, 3]
    for shard, both in rest.items():
        for found, expected in zip(both, whole[shard], strict=True):
            np.testing.assert_array_equal(found, expected)
    assert list(source.blocks(segments[0], tmp_path / "a")) == [], "all of it is made"


def test_either_way_of_building_goes_on_from_the_other(source, tmp_path):
    """Segments then stand at different shards: one is in its second day, the others spin up."""
    segments = source.segments()
    first = source.blocks(segments[0], tmp_path)
    _, alone, forcing = next(first)
    shard, expected, _ = next(first)  # by now the restart point stands behind the first
    assert shard == 1
    first.close()
    rounds = source.rounds(segments, tmp_path)
    made = next(rounds)
    assert [block.shard for block in made] == [1]
    assert_close(made[0].state[:, :33], expected[:, :33])
    day = next(rounds)
    assert [block.shard for block in day] == [2, 4]
    next(rounds)
    rounds.close()
    assert np.isfinite(alone).all() and forcing.shape == (4, 2, 32, 64)
    shard, onward, _ = next(iter(source.blocks(segments[1], tmp_path)))
    assert shard == 3
    following = next(iter(source.rounds(segments, tmp_path)))
    assert [block.shard for block in following] == [3]
    assert_close(onward, following[0].state)


def test_realisations_repeat_the_years_with_seeds_of_their_own(monkeypatch, tmp_path):
    from gapzoo.data.sources import speedy

    monkeypatch.setattr(speedy, "SHARD", 4)
    days = {"start": "1979-01-01", "end": "1979-01-05", "segment_shards": 2, "hours": 18}
    one = speedy.SpeedySource(**days)
    made = speedy.SpeedySource(**days, realisations=3)
    assert "realisations" not in one.arguments and made.arguments["realisations"] == 3
    assert len(one.times) == 6 and len(made.times) == 12, "each is cut to whole shards"
    for number in range(3):
        assert made.times[4 * number : 4 * number + 4].equals(one.times[:4])
    assert [(s.number, s.first, s.last) for s in made.segments()] == [
        *((0, 0, 1), (1, 1, 2), (2, 2, 3))
    ]
    np.testing.assert_array_equal(made._runs(), np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(one._runs(), [0] * 6)


def test_realisations_that_cannot_be_are_refused():
    from gapzoo.core import GapzooError
    from gapzoo.data import SOURCES

    with pytest.raises(GapzooError, match="realisations is 0"):
        SOURCES.build("speedy", realisations=0)
    with pytest.raises(GapzooError, match=r"4 steps of 2 realisations.*120"):
        SOURCES.build("speedy", start="1990-01-01", end="1990-01-01", realisations=2)


def test_segments_of_realisations_begin_from_other_seeds(monkeypatch):
    """Their numbers go on, and seeds are derived from those."""
    from gapzoo.data.sources import speedy

    monkeypatch.setattr(speedy, "SHARD", 4)
    made = speedy.SpeedySource(end="1979-01-04", segment_shards=3, realisations=2)
    numbers = [segment.number for segment in made.segments()]
    assert numbers == list(range(4))
    edges = [s.first for s in made.segments()] + [made.segments()[-1].last]
    assert [b - a for a, b in itertools.pairwise(edges)] == [3, 1, 3, 1]
