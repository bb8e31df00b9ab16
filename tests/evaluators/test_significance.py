"""Block bootstrap: normal theory, scipy's paired t-test, serial correlation."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.significance import compare, draws, interval, joined


def _series(values):
    """Sums of a bias metric whose per-sample scores are the values."""
    values = torch.as_tensor(values)
    return {"weight": torch.ones(len(values), dtype=torch.float64), "error": values.double()}


@pytest.fixture
def bias():
    return EVALUATORS.build("bias", area_weights=[1.0])


def _width(bias, values, block):
    found = interval(
        bias, _series(values), block=block, generator=np.random.default_rng(1), resamples=1000
    )
    return (found.high - found.low).item()


def test_independent_samples_follow_normal_theory(bias):
    values = np.random.default_rng(0).normal(size=400)
    expected = 2 * 1.96 * values.std() / 20
    assert _width(bias, values, 1) == pytest.approx(expected, rel=0.06)


def test_blocks_see_serial_correlation(bias):
    noise, a = np.random.default_rng(0).normal(size=6_000), 0.8
    values = scipy.signal.lfilter([1], [1, -a], noise)
    independent = 2 * 1.96 * values.std() / len(values) ** 0.5
    assert _width(bias, values, 1) == pytest.approx(independent, rel=0.06)
    correlated = independent * ((1 + a) / (1 - a)) ** 0.5
    assert _width(bias, values, 60) == pytest.approx(correlated, rel=0.1)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.15])
def test_p_value_agrees_with_the_paired_t_test(bias, shift):
    rng = np.random.default_rng(3)
    common = 5 * rng.normal(size=300)
    first, second = common + rng.normal(size=300) + shift, common + rng.normal(size=300)
    found = compare(
        bias, _series(first), _series(second),
        block=1, generator=np.random.default_rng(4), resamples=9999,
    )  # fmt: skip
    expected = scipy.stats.ttest_rel(first, second).pvalue
    deviation = np.sqrt(expected * (1 - expected) / 9999)
    assert found.p.item() == pytest.approx(expected, abs=4 * deviation + 0.01)
    assert found.value.item() == pytest.approx((first - second).mean())
    assert (found.low.item() > 0) == (found.p.item() < 0.05)


def test_score_and_chunks_match_compute(case):
    metric = case.build("spread_skill")
    chunks = [metric.samples(case.forecast[s], case.truth[s]) for s in (slice(0, 2), slice(2, 5))]
    found = interval(metric, joined(chunks), block=2, generator=np.random.default_rng(0))
    torch.testing.assert_close(found.value, case.score("spread_skill"), rtol=1e-9, atol=0)
    assert (found.low <= found.high).all() and found.low.shape == (2, 9)


def test_a_forecast_does_not_differ_from_itself(case):
    metric = case.build("rmse")
    sums = metric.samples(case.forecast, case.truth)
    found = compare(metric, sums, sums, block=2, generator=np.random.default_rng(0), resamples=99)
    assert (found.p == 1).all() and (found.value == 0).all()


def test_draws_are_circular_blocks():
    counts = draws(7, 3, 2000, np.random.default_rng(0))
    assert (counts.sum(1) == 7).all()
    deviation = counts.std(0) / 2000**0.5
    assert (abs(counts.mean(0) - 1) < 4 * deviation).all()
    assert (draws(7, 7, 50, np.random.default_rng(0)) == 1).all()


def test_bad_blocks_and_pairs_are_named(bias):
    with pytest.raises(GapzooError, match="take 1 to 5"):
        draws(5, 6, 10, np.random.default_rng(0))
    with pytest.raises(GapzooError, match="5 and 4 initial times"):
        compare(bias, _series(np.ones(5)), _series(np.ones(4)), block=1,
                generator=np.random.default_rng(0))  # fmt: skip
