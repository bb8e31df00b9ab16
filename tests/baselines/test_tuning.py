import math

import pytest

from gapzoo.baselines.tuning import search, tune_optimal_interpolation
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.observations import simulate
from tests.baselines.test_optimal_interpolation import CHANNELS, GRID, climate, network


def test_search_finds_the_least_and_skips_what_is_not_finite():
    def score(a, b):
        return math.nan if a == 2 else (a - 3) ** 2 + b

    best, table = search(score, {"a": [1, 2, 3], "b": [5, 4]})
    assert best == {"a": 3, "b": 4} and list(table.columns) == ["a", "b", "score"]
    assert len(table) == 6 and table["score"].iloc[0] == 4
    with pytest.raises(GapzooError, match="finite"):
        search(score, {"a": [2], "b": [1]})


def test_a_small_sample_wants_localisation_and_a_large_one_does_not():
    operator, errors = network()
    truth = climate(60, 5)
    cases = [(truth, operator, errors, simulate(truth, operator, errors, 6))]
    options = {"length": [2e6, math.inf]}
    for count, expected in ((12, 2e6), (3000, math.inf)):
        generator = MemberGenerator(0, 10)
        best, _ = tune_optimal_interpolation(
            climate(count, 0), GRID, CHANNELS, cases, generator, options
        )
        assert best["length"] == expected
