"""Guidance: what it asks of a network and of a constraint's operator, and what is refused."""

import pytest
import torch
from noisy import noisy
from torch import nn

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import (
    GUIDANCE,
    SAMPLERS,
    SCHEDULES,
    DenseCovariance,
    GaussianConstraint,
    GaussianDenoiser,
    GaussianForecast,
    PreconditionedDenoiser,
    SpectralCovariance,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.calls = nn.Conv2d(2, 2, 3, padding=1), 0

    def forward(self, x, c_noise, cond=None):
        self.calls += 1
        return torch.tanh(self.net(x))


@pytest.mark.parametrize("name", GUIDANCE.names())
def test_one_forward_pass_of_the_network_a_call_and_no_graph_left(name):
    backbone = Net()
    denoiser = PreconditionedDenoiser(backbone, SCHEDULES.build("edm"))
    constraint = GaussianConstraint(lambda x: x[:, :1, ::2], torch.ones(1, 1, 2, 8), 0.1)
    options = {"climatology": SpectralCovariance(torch.ones(2, 4, 5))} if name == "wiener" else {}
    guided = GUIDANCE.build(name, denoiser=denoiser, constraints=constraint, **options)
    with torch.no_grad():
        mean = guided(torch.ones(3, 2, 4, 8), torch.tensor(0.4)).mean
    assert backbone.calls == 1 and not mean.requires_grad
    assert backbone.net.weight.grad is None


@pytest.mark.parametrize("name", ["mmps", "sda", "pigdm"])
def test_a_nonlinear_operator_reduces_the_misfit(name):
    g = torch.Generator().manual_seed(0)
    prior = GaussianDenoiser(torch.full((2, 4, 8), 1.0), 1.0, SCHEDULES.build("edm"))

    def speed(x):
        return (x[:, 0, ::2] ** 2 + x[:, 1, ::2] ** 2 + 1e-6).sqrt()

    truth = 1 + torch.randn(1, 2, 4, 8, generator=g)
    y = speed(truth) + 0.1 * torch.randn(1, 2, 8, generator=g)
    posterior = GUIDANCE.build(name, denoiser=prior, constraints=GaussianConstraint(speed, y, 0.01))

    def misfit(denoiser):
        sampler = SAMPLERS.build("heun", denoiser=denoiser, steps=24)
        x = sampler(shape=(2, 4, 8), generator=MemberGenerator(0, 8))
        return (speed(x) - y).square().mean().sqrt().item()

    assert misfit(posterior) < 0.2 < 0.8 < misfit(prior)


def test_linearisation_is_the_jacobian_of_a_nonlinear_operator():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 2, 3, generator=g, dtype=torch.float64)

    def operator(v):
        return (v[:, 0] * v[:, 1].sin()).flatten(1)[:, ::2]

    part = GaussianConstraint(operator, torch.zeros(1, 3), 1.0).linearise(x)
    jacobian = torch.autograd.functional.jacobian(operator, x).reshape(2, 3, 2, 12)
    v, s = torch.randn(x.shape, generator=g).double(), torch.randn(2, 3, generator=g).double()
    for b in range(2):
        h = jacobian[b, :, b]
        torch.testing.assert_close(part.forward(v)[b], h @ v[b].flatten())
        torch.testing.assert_close(part.adjoint(s)[b].flatten(), h.T @ s[b])


def constraint(**changes):
    given = {"operator": lambda x: x.flatten(1)[:, :2], "y": torch.zeros(1, 2), "variance": 1.0}
    return GaussianConstraint(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.tensor([[0.0, float("nan")]])}, "observation is not finite"),
        ({"variance": 0.0}, "error variance is 0"),
        ({"variance": torch.tensor([1.0, -1.0])}, "negative or not finite"),
    ],
)
def test_bad_observations_are_refused(changes, message):
    with pytest.raises(GapzooError, match=message):
        constraint(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.zeros(1, 3)}, r"\(1, 3\) do not fit the operator's output \(4, 2\)"),
        ({"y": torch.zeros(3, 2)}, r"\(3, 2\) do not fit"),
        ({"operator": lambda x: x.detach().flatten(1)[:, :2]}, "not differentiable"),
    ],
)
def test_observations_that_do_not_fit_are_refused(changes, message, linear):
    schedule = SCHEDULES.build("edm")
    guided = GUIDANCE.build(
        "mmps", denoiser=linear.prior(schedule), constraints=constraint(**changes)
    )
    with pytest.raises(GapzooError, match=message):
        guided(*noisy(schedule))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mmps", {"solver": "gmre"}, "did you mean 'gmres'"),
        ("mmps", {"iterations": 0}, "iterations is 0"),
        ("mmps", {"constraints": []}, "no constraint given"),
        ("sda", {"gamma": -1.0}, "gamma is -1"),
        ("dps", {"zeta": 0.0}, "zeta is 0"),
        ("pigdm", {"sigma_data": 0.0}, "not positive"),
        ("wiener", {}, "needs the climatological covariance"),
        ("wiener", {"climatology": SpectralCovariance(torch.ones(1, 1, 1)), "iterations": 0}, "0"),
        ("mpms", {}, "did you mean 'mmps'"),
        ("sda", {"zeta": 1.0}, "unexpected keyword argument 'zeta'"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message, linear):
    prior = linear.prior(SCHEDULES.build("edm"))
    with pytest.raises(GapzooError, match=message):
        GUIDANCE.build(name, **{"denoiser": prior, "constraints": constraint(), **arguments})


def test_a_climatology_of_another_basis_is_refused(linear):
    schedule = SCHEDULES.build("edm")
    x_t, t = noisy(schedule)
    forecast = GaussianForecast(torch.zeros(1, 8, 1, 1), 0.1).constraint()
    guided = GUIDANCE.build(
        "mmps",
        denoiser=linear.prior(schedule),
        constraints=forecast,
        climatology=DenseCovariance(linear.covariance),
    )
    with pytest.raises(GapzooError, match="differ in basis"):
        guided(x_t, t)
