"""Weights of a single evaluation, from a checkpoint to a roll-out."""

import torch
from linear import START

import gapzoo
from gapzoo.core import MemberGenerator
from gapzoo.diffusion.single import BINS
from gapzoo.tasks.rollout import Start
from gapzoo.tasks.settings import RolloutSettings, rollout_of


def test_weights_of_a_single_evaluation_come_from_the_forecaster_s_checkpoint():
    """With c alone, a draw is the regressed forecast itself; other samplers are let be."""
    prior, network = (
        gapzoo.load(n) for n in ("unet_small.speedy-t21-v4", "convcast_small.speedy-t21-v3")
    )
    network.extras["error24.single"] = torch.stack([torch.ones(BINS), *torch.zeros(2, BINS)])
    network.extras["error24.single.scale"] = torch.ones(prior.world.shape[:2])
    noise = torch.randn(1, *prior.world.shape, generator=torch.Generator().manual_seed(0))
    start = Start(prior.covariance.sample(noise).repeat(2, 1, 1, 1), START, MemberGenerator(0, 2))
    roll = rollout_of(RolloutSettings(), prior, network, prior.world)
    drawn = next(roll.frames([start]))[0].state
    forecast = network.forecaster_in(prior.world).step(start.state, START, 24)
    error = network.error(24, prior.covariance)
    known = prior.covariance.filter(forecast, lambda b: error.gain)
    known = prior.denoiser.finish(known)
    torch.testing.assert_close(drawn, known, rtol=1e-3, atol=2e-3)
    other = RolloutSettings(sampling={"sampler": "exponential", "steps": 1})
    roll = rollout_of(other, prior, network, prior.world)
    assert "weights" not in roll.sampling.sampler_options
