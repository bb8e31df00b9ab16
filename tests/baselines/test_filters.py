import math
import statistics

import pytest
import torch

from gapzoo.baselines import BASELINES
from gapzoo.baselines.gain import Gain
from gapzoo.baselines.letkf import Places, adapt, random_rotation
from gapzoo.baselines.localisation import Sphere
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.observations import ColumnStations, LinearObservationOperator, simulate
from tests.baselines.test_optimal_interpolation import CHANNELS, GRID, SHAPE, climate, network

ONE = LinearObservationOperator(
    index=torch.zeros(1, 1, dtype=torch.long), weights=torch.ones(1, 1, dtype=torch.float64),
    shape=(1, 1, 1), latitude=torch.zeros(1), longitude=torch.zeros(1),
    channel=torch.zeros(1, dtype=torch.long),
)  # fmt: skip


def kalman(ensemble, operator, y, errors):
    """Mean and covariance of the textbook's analysis with the ensemble's covariance."""
    x = ensemble.flatten(1)
    cov = torch.cov(x.T)
    h = operator(torch.eye(x.shape[1], dtype=x.dtype).unflatten(-1, ensemble.shape[1:])).T
    gain = cov @ h.T @ torch.linalg.inv(h @ cov @ h.T + torch.diag(errors**2))
    return x.mean(0) + gain @ (y - h @ x.mean(0)), cov - gain @ h @ cov


def doubled(operator):
    weights = operator.weights.double()
    return LinearObservationOperator(**{**vars(operator), "weights": weights})


@pytest.mark.parametrize("rotation", [False, True])
def test_letkf_without_localisation_is_the_kalman_filter(rotation):
    operator, errors = (doubled(network()[0]), network()[1].double())
    ensemble = climate(12, 0).double()
    y = simulate(climate(1, 1)[0].double(), operator, errors, 2)
    letkf = BASELINES.build("letkf", rotation=rotation)
    analysis = letkf.analyse(ensemble, operator, y, errors, MemberGenerator(0, 12))
    mean, covariance = kalman(ensemble, operator, y, errors)
    torch.testing.assert_close(analysis.mean(0).flatten(), mean)
    torch.testing.assert_close(torch.cov(analysis.flatten(1).T), covariance)


def test_letkf_at_a_point_uses_the_tapered_precisions_of_its_level():
    # One station: at each point and level the local problem has R / taper.
    operator = ColumnStations.at(torch.tensor([[5, 5]]), GRID, CHANNELS).subset(torch.tensor([1]))
    operator, errors = doubled(operator), torch.tensor([0.5], dtype=torch.float64)
    ensemble, y = climate(10, 0).double(), torch.tensor([4.0], dtype=torch.float64)
    where = Sphere(GRID, CHANNELS, length=2e6, vertical=0.5, tile=4)
    analysis = BASELINES.build("letkf", locality=where).analyse(ensemble, operator, y, errors)
    between = where.taper(where.points, where.points[[5 * 12 + 5]])[:, 0].unflatten(0, (10, 12))
    for c, i, j in ((0, 5, 5), (1, 4, 6), (2, 6, 5), (1, 0, 0)):
        taper = float(between[i, j] * where.channel_taper[1, c])
        seen = operator(ensemble)[:, 0]
        precision = taper / errors[0] ** 2
        gain_seen = seen.var() * precision / (1 + seen.var() * precision)
        cov = torch.cov(torch.stack([ensemble[:, c, i, j], seen]))[0, 1]
        expected = ensemble[:, c, i, j].mean()
        expected = expected + cov / seen.var() * gain_seen * (y[0] - seen.mean())
        torch.testing.assert_close(analysis[:, c, i, j].mean(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(analysis[:, :, 0, 0], ensemble[:, :, 0, 0])


def columns():
    """Four columns and their errors."""
    where = torch.tensor([[2, 3], [5, 5], [7, 10], [8, 1]])
    stations = ColumnStations.at(where, GRID, CHANNELS)
    operator = doubled(stations.subset(torch.arange(len(stations))))
    return operator, torch.linspace(0.2, 1.0, len(operator)).double()


def by_column(operator, correlation):
    """Places of stations whose levels' errors are correlated, and the same as a matrix (N,N)."""
    channels, n = len(CHANNELS), len(operator) // len(CHANNELS)
    rows = torch.arange(len(operator)).unflatten(0, (channels, n)).T
    covariance = torch.full((channels, channels), correlation).double()
    covariance = covariance.fill_diagonal_(1.0).expand(n, -1, -1)
    whole = torch.zeros(len(operator), len(operator), dtype=torch.float64)
    for own, part in zip(rows, covariance, strict=True):
        whole[own[:, None], own] = part
    places = Places(rows, covariance, operator.latitude[rows[:, 0]], operator.longitude[rows[:, 0]])
    return places, whole


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_letkf_with_errors_that_a_column_shares_is_the_kalman_filter(correlation):
    operator, errors = columns()
    ensemble = climate(12, 0).double()
    y = simulate(climate(1, 1)[0].double(), operator, errors, 2)
    places, r = by_column(operator, correlation)
    letkf = BASELINES.build("letkf", inflation=1.2)
    analysis = letkf.analyse(ensemble, operator, y, errors, places=places)
    x = ensemble.flatten(1)
    cov = 1.2**2 * torch.cov(x.T)
    h = operator(torch.eye(x.shape[1], dtype=x.dtype).unflatten(-1, ensemble.shape[1:])).T
    r = errors[:, None] * r * errors
    gain = cov @ h.T @ torch.linalg.inv(h @ cov @ h.T + r)
    torch.testing.assert_close(analysis.mean(0).flatten(), x.mean(0) + gain @ (y - h @ x.mean(0)))
    torch.testing.assert_close(torch.cov(analysis.flatten(1).T), cov - gain @ h @ cov)


def test_independent_errors_by_place_are_the_same_filter_localised(monkeypatch):
    """Also where a place has fewer observations than others."""
    operator, errors = columns()
    where = Sphere(GRID, CHANNELS, length=2e6, vertical=0.5, tile=4)
    letkf = BASELINES.build("letkf", locality=where, inflation=1.1, rtps=0.5)
    ensemble = climate(12, 0).double()
    y = simulate(climate(1, 1)[0].double(), operator, errors, 2)
    keep = torch.arange(1, len(operator))
    fewer, given = operator.subset(keep), (y[keep], errors[keep])
    places, _ = by_column(operator, 0.0)
    places = Places(places.rows - 1, places.covariance, places.latitude, places.longitude)
    found = letkf.analyse(ensemble, fewer, *given, places=places)
    monkeypatch.setattr(Places, "apart", lambda operator: operator)
    alone = letkf.analyse(ensemble, fewer, *given)  # tapers are float32
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)


def test_adaptive_inflation_is_refused_with_errors_in_common():
    operator, errors = columns()
    places, _ = by_column(operator, 0.5)
    letkf = BASELINES.build("letkf", adaptive=0.05)
    with pytest.raises(GapzooError, match="takes errors as independent"):
        letkf.analyse(climate(4, 0).double(), operator, 0 * errors, errors, places=places)


def test_rotation_is_orthogonal_and_keeps_the_mean():
    turn = random_rotation(9, MemberGenerator(3, 9))
    torch.testing.assert_close(turn @ turn.T, torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(turn.sum(1), torch.ones(9, dtype=torch.float64))
    assert (turn - torch.eye(9)).abs().max() > 0.2


def test_relaxation_to_prior_spread():
    operator, errors = network()
    ensemble = climate(12, 0)
    y = simulate(climate(1, 1)[0], operator, errors, 2)
    runs = [
        BASELINES.build("letkf", rtps=r).analyse(ensemble, operator, y, errors)
        for r in (0.0, 0.5, 1.0)
    ]
    torch.testing.assert_close(runs[2].std(0), ensemble.std(0))
    middle = (runs[0].std(0) + ensemble.std(0)) / 2
    torch.testing.assert_close(runs[1].std(0), middle)
    torch.testing.assert_close(runs[1].mean(0), runs[0].mean(0), atol=1e-4, rtol=1e-4)


def test_adaptive_inflation_finds_the_factor():
    # Innovations of variance 4 s^2 + 1 ask for a factor 4 on the seen variance s^2.
    g = torch.Generator().manual_seed(0)
    guess = torch.ones(1)
    for _ in range(600):
        seen = 0.8 * torch.randn(20, 200, generator=g)
        innovation = (4 * 0.64 + 1) ** 0.5 * torch.randn(200, generator=g)
        guess = adapt(guess, torch.ones(1, 200), seen, innovation, 0.1)
    assert guess.item() == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("name", ["enkf", "letkf"])
def test_scalar_kalman_steady_state(name):
    # a = 0.9, q^2 = 0.19, r = 0.25: analysis variance 0.136476, and that is the error's too.
    build = BASELINES.build(name)
    g = torch.Generator().manual_seed(0)
    members, errors = 100, torch.tensor([0.5], dtype=torch.float64)
    truth = torch.zeros(1, dtype=torch.float64)
    ensemble = torch.randn(members, 1, 1, 1, generator=g, dtype=torch.float64)
    variances, squares = [], []
    for cycle in range(800):
        noise = torch.randn(members + 2, generator=g, dtype=torch.float64)
        truth = 0.9 * truth + math.sqrt(0.19) * noise[0]
        ensemble = 0.9 * ensemble + math.sqrt(0.19) * noise[2:, None, None, None]
        y = truth + 0.5 * noise[1]
        ensemble = build.analyse(ensemble, ONE, y, errors, MemberGenerator(cycle, members))
        variances.append(ensemble.var().item())
        squares.append((ensemble.mean() - truth).square().item())
    assert statistics.mean(variances[50:]) == pytest.approx(0.136476, rel=0.02)
    # The mean of 750 squares, correlated over a step or two: standard error 6 %.
    assert statistics.mean(squares[50:]) == pytest.approx(0.136476, rel=0.15)


def test_enkf_mean_is_the_kalman_mean():
    operator, errors = (doubled(network()[0]), network()[1].double())
    ensemble = climate(15, 0).double()
    y = simulate(climate(1, 1)[0].double(), operator, errors, 2)
    enkf = BASELINES.build("enkf")
    analysis = enkf.analyse(ensemble, operator, y, errors, MemberGenerator(0, 15))
    torch.testing.assert_close(analysis.mean(0).flatten(), kalman(ensemble, operator, y, errors)[0])


def test_var3d_minimum_is_the_gain_and_takes_nonlinear_operators():
    operator, errors = doubled(network()[0]), network()[1].double()
    sample, background, truth = (climate(n, k).double() for n, k in ((60, 0), (2, 4), (2, 5)))
    y = simulate(truth, operator, errors, 6)
    var3d = BASELINES.build("var3d", sample=sample, scale=0.3)
    linear = var3d.analyse(background, operator, y, errors)
    gain = Gain(sample, operator, errors, inflation=0.3)
    torch.testing.assert_close(linear, background + gain.increment(y - operator(background)))
    torch.testing.assert_close(
        var3d.minimise(background, operator, y, errors), linear, atol=1e-3, rtol=1e-3
    )

    def speed(x):
        return (operator(x).square() + 1).sqrt()

    analysis = var3d.minimise(background, speed, speed(truth), errors)
    before, after = ((speed(x) - speed(truth)).square().mean() for x in (background, analysis))
    assert after < 0.3 * before


def test_climatology_draws_the_sample():
    sample = climate(40, 0)
    drawn = BASELINES.build("climatology", sample=sample).members(
        torch.zeros(3, 5), MemberGenerator(0, 6)
    )
    assert drawn.shape == (3, 6, *SHAPE)
    gaps = (drawn.flatten(0, 1)[:, None] - sample).abs().flatten(2).amax(-1).amin(1)
    assert gaps.max() == 0


def test_bad_settings_name_the_fix():
    with pytest.raises(GapzooError, match="rtps 2"):
        BASELINES.build("letkf", rtps=2)
    with pytest.raises(GapzooError, match="pass a generator"):
        BASELINES.build("letkf", rotation=True).analyse(
            torch.randn(3, 1, 1, 1), ONE, torch.zeros(1), torch.ones(1)
        )
    with pytest.raises(GapzooError, match="inflation 0"):
        BASELINES.build("enkf", inflation=0)
    with pytest.raises(GapzooError, match="errors above zero"):
        Gain(torch.randn(4, 1, 1, 1), ONE, torch.zeros(1))
    with pytest.raises(GapzooError, match="no localisation"):
        where = Sphere(GRID, CHANNELS, length=1e6)
        var3d = BASELINES.build("var3d", sample=climate(4, 0), locality=where)
        var3d.minimise(climate(1, 1), *network()[:1], torch.zeros(15), torch.ones(15))
    with pytest.raises(GapzooError, match="localisation on 120"):
        list(Sphere(GRID, CHANNELS, length=1e6).state_tiles(network()[0], 7))
