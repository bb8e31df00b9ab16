import pytest
import torch

from gapzoo.core import GapzooError
from gapzoo.diffusion import DenseCovariance, DiagonalCovariance, SpectralCovariance

SHAPE = (2, 5, 8)
N = 80


def spectral(meridional):
    g = torch.Generator().manual_seed(0)
    return SpectralCovariance(0.1 + torch.rand(2, 5, 5, generator=g), meridional)


def dense():
    g = torch.Generator().manual_seed(0)
    root = torch.randn(N, N, generator=g, dtype=torch.float64)
    return DenseCovariance(root @ root.T / N + 0.1 * torch.eye(N))


ALL = [
    DiagonalCovariance(torch.linspace(0.5, 2, 2)[:, None, None]),
    spectral(False),
    spectral(True),
    dense(),
]


def matrix(operator):
    units = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    return operator.apply(units).reshape(N, N)


@pytest.mark.parametrize("operator", ALL)
def test_it_is_symmetric_positive_and_inverse_undoes_apply(operator):
    m = matrix(operator)
    torch.testing.assert_close(m, m.T)
    assert torch.linalg.eigvalsh(m).min() > 0
    v = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(operator.inverse(operator.apply(v)), v)
    torch.testing.assert_close(operator.apply(v).flatten(1), v.flatten(1) @ m)


@pytest.mark.parametrize("operator", ALL)
def test_a_filter_with_a_scalar_a_member_is_the_function_of_the_matrix(operator):
    v = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift = torch.tensor([0.3, 2.0], dtype=torch.float64)
    got = operator.filter(v, lambda b, s: 1 / (b + s), shift.reshape(2, 1, 1, 1))
    eye, m = torch.eye(N, dtype=torch.float64), matrix(operator)
    for k in range(2):
        expected = torch.linalg.solve(m + shift[k] * eye, v[k].flatten())
        torch.testing.assert_close(got[k].flatten(), expected)


@pytest.mark.parametrize("operator", ALL)
def test_a_sample_squared_is_the_covariance(operator):
    units = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    root = operator.sample(units).reshape(N, N)
    torch.testing.assert_close(root @ root.T, matrix(operator))


@pytest.mark.parametrize("meridional", [False, True])
def test_estimate_recovers_the_spectrum_of_samples(meridional):
    true = spectral(meridional)
    g = torch.Generator().manual_seed(2)
    errors = true.sample(torch.randn(20000, *SHAPE, generator=g))
    ratio = SpectralCovariance.estimate(errors, meridional).eigenvalues / true.eigenvalues
    assert (ratio - 1).abs().max() < 5 * (2 / 20000) ** 0.5


def test_a_flat_spectrum_is_white_noise():
    v = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    for meridional in (False, True):
        white = SpectralCovariance(torch.full((2, 5, 5), 0.7), meridional)
        torch.testing.assert_close(white.apply(v), 0.7 * v)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DiagonalCovariance(-1.0), "negative or not finite"),
        (lambda: SpectralCovariance(torch.ones(3, 4)), r"give \(C, H, W // 2 \+ 1\)"),
        (lambda: DenseCovariance(torch.ones(3, 4)), "give a square matrix"),
        (lambda: DenseCovariance(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), "not symmetric"),
        (lambda: DenseCovariance(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "negative"),
    ],
)
def test_what_is_no_covariance_is_refused(build, message):
    with pytest.raises(GapzooError, match=message):
        build()
