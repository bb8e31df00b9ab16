"""Scores: which way is better, what rows say of their own, what is shown of whom."""

import math

import pytest
from boards import climate_row, row, seasonal_row
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.leaderboard import metrics, tables
from gapzoo.leaderboard.metrics import METRICS, Metric


def test_badness_ranks_as_a_reader_does():
    assert METRICS["rmse"].badness(0.2) < METRICS["rmse"].badness(0.3)
    assert METRICS["acc"].badness(0.9) < METRICS["acc"].badness(0.8)
    bias = METRICS["bias"]
    assert bias.badness(-0.1) == bias.badness(0.1) < bias.badness(-0.2)
    assert math.isnan(METRICS["spread_skill"].badness(0.9)), "not a rank: climatology is calibrated"


def test_ratios_are_as_bad_twice_as_half():
    ratio = METRICS["variance_ratio"]
    assert ratio.badness(2.0) == pytest.approx(ratio.badness(0.5)) == pytest.approx(math.log(2))
    assert ratio.badness(1.0) == 0 and ratio.badness(0.0) == math.inf


def test_a_track_shows_its_scores_and_rows_those_they_describe():
    assert metrics.names([row("gap", "weather", 0.2)]) == ["crps", "rmse", "acc", "spread_skill"]
    assert metrics.names([row("persistence", "weather", 0.2, members=1)])[-1] == "acc"
    assert metrics.names([climate_row("gap", 0.1)])[0] == "drift"
    bare = {"entry": "a", "protocol": "new-toy", "scores": {"x": {"b": 1.0, "a": 2, "n": [1]}}}
    assert metrics.names([bare]) == ["b", "a"], "all numbers where nobody says"
    assert metrics.metric("b", [bare]) == Metric("b")


def test_rows_describe_scores_of_their_own():
    every = [climate_row("gap", 0.1), climate_row("speedy", 0.02)]
    drift = metrics.metric("drift", every)
    assert (drift.title, drift.better, drift.units) == ("drift", "near", "K a century")
    ranking = tables.Ranking(every, "drift")
    assert [r["entry"] for r in ranking.rows] == ["speedy", "gap"]
    assert ranking.best == {"1000_years": 0}
    stable = tables.Ranking(every, "first_non_finite")
    assert stable.cells(0, "{}") == ["1000"], "no digits after the point"
    assert tables.Ranking([seasonal_row("gap", 0.6)], "rpss").told.title == "tercile RPSS"


def test_what_is_described_reads_back():
    known = {"drift": Metric("drift", "near", 0.0, "K")}
    assert metrics.known([{"metrics": metrics.described(known)}])["drift"] == known["drift"]


@pytest.mark.parametrize(
    ("told", "parts"),
    [
        ({"title": "drift", "better": "small"}, ["'drift'", "'small'"]),
        ({"title": "drift", "better": "near"}, ["'near' needs an 'ideal'"]),
        ({"titel": "drift"}, ["'mine'", "'titel'", "'title'"]),
        ({"better": "lower"}, ["'mine'", "title, better"]),
        ("drift", ["'mine'", "title, better"]),
    ],
)
def test_wrong_descriptions_are_refused(told, parts):
    with expect(GapzooError, *parts):
        metrics.known([{"metrics": {"mine": told}}])
