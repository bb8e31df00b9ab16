"""Anomaly correlation against numpy's, and both orders of averaging."""

import numpy as np
import pytest
import torch

from gapzoo.core import GapzooError


def _weights(case):
    return np.repeat(case.grid.area_weights, case.grid.shape[1])


def test_centred_samples_agree_with_numpy(case):
    mean, truth = case.forecast.double().mean(1).flatten(-2), case.truth.double().flatten(-2)

    def r(b):
        pair = np.stack([mean[b, 1, 2], truth[b, 1, 2]])
        cov = np.cov(pair, aweights=_weights(case))
        return cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])

    found = case.score("acc", centred=True)[1, 2].item()
    assert found == pytest.approx(np.mean([r(b) for b in range(5)]), rel=1e-5)


def test_centred_pooled_agrees_with_numpy(case):
    pair = np.stack([x.double()[:, 1, 2].flatten() for x in (case.forecast.mean(1), case.truth)])
    cov = np.cov(pair, aweights=np.tile(_weights(case), 5))
    found = case.score("acc", centred=True, order="pooled")[1, 2].item()
    assert found == pytest.approx(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]), rel=1e-5)


def test_uncentred_by_hand(case):
    f, o = (x.double()[:, 0, 3] - 0.1 for x in (case.forecast.mean(1), case.truth))
    w = torch.as_tensor(case.grid.area_weights)[:, None]
    sums = [(a * b * w).sum((-2, -1)) for a, b in ((f, o), (f, f), (o, o))]
    samples = (sums[0] / (sums[1] * sums[2]).sqrt()).mean().item()
    assert case.score("acc")[0, 3].item() == pytest.approx(samples, rel=1e-5)
    total = [s.sum() for s in sums]
    pooled = (total[0] / (total[1] * total[2]).sqrt()).item()
    assert case.score("acc", order="pooled")[0, 3].item() == pytest.approx(pooled, rel=1e-5)


@pytest.mark.parametrize("order", ["samples", "pooled"])
def test_a_perfect_and_an_opposite_forecast(case, order):
    case.forecast = (0.1 + 2 * (case.truth - 0.1))[:, None]
    one = torch.ones(2, 9, dtype=torch.float64)
    torch.testing.assert_close(case.score("acc", order=order), one, rtol=0, atol=1e-6)
    case.forecast = (0.1 - (case.truth - 0.1))[:, None]
    torch.testing.assert_close(case.score("acc", order=order), -one, rtol=0, atol=1e-6)


def test_unknown_order_is_named(case):
    with pytest.raises(GapzooError, match="did you mean 'pooled'"):
        case.build("acc", order="pool")
