"""Sampler and guidance against exact draws of a posterior: what does drawing an analysis lose?

Truth and prior are N(0, L), L a checkpoint's climatological covariance, its network left out, so
the posterior under stations is Gaussian and its mean and members come from one linear system,
solved to rounding. For each SAMPLER:STEPS[:ITERATIONS[:TOLERANCE]], by variance of L's modes: the
squared error of the ensemble mean about the exact mean over what so many members make of it (1 is
no bias), and the variance over the exact one. One thread; needs no archive.

    OMP_NUM_THREADS=1 python benchmarks/posterior.py unet_small.speedy-t21-v4 --density 0.1
"""

from __future__ import annotations

import argparse
import itertools
import time

import pandas as pd
import torch
from torch import Tensor, nn

from gapzoo import checkpoint
from gapzoo.core import GapzooError
from gapzoo.core.random import MemberGenerator
from gapzoo.diffusion.denoiser import PreconditionedDenoiser
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.krylov import cg
from gapzoo.diffusion.prior import Prior
from gapzoo.leaderboard.methods import Network
from gapzoo.tasks.sampling import Sampling

SETTINGS = ("dpmpp_2m:16", "dpmpp_2m:16:30", "dpmpp_2m:16:100:0.01", "exponential:16")
BANDS = (0.01, 0.1, 1.0, 10.0, 100.0, 1e9)
LONGEST = 400
"""Conjugate gradients of the exact solution."""


class Silent(nn.Module):
    """A network that says nothing beyond the Wiener filter."""

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Zero."""
        return torch.zeros_like(x)


def sampling_of(text: str) -> Sampling:
    """From SAMPLER:STEPS[:ITERATIONS[:TOLERANCE]]."""
    name, steps, *rest = text.split(":")
    kinds = {"iterations": int, "tolerance": float}
    options = {k: kind(v) for (k, kind), v in zip(kinds.items(), rest, strict=False)}
    guided = {"guidance": "wiener", "guidance_options": options} if options else {}
    return Sampling(sampler=name, steps=int(steps), **guided)  # type: ignore[arg-type]


class Problem:
    """Stations, a truth of N(0, L), the exact posterior mean and members.

    Args:
        made: checkpoint of a prior around its climatology.
        given: density, members and seed.
    """

    def __init__(self, made: checkpoint.Checkpoint, given: argparse.Namespace) -> None:
        if made.covariance is None:
            raise GapzooError(f"'{made.name}' has no climatology; take a prior around one")
        world, self.level = made.world, made.covariance
        self.shape, self.seed = world.shape, given.seed
        net = Network(world, given.density, given.seed)
        mean = world.mean(pd.DatetimeIndex(["2004-01-15"]))[0]
        self.seen = net.stations.scaled(mean, world.std)[0].rescaled(1 / net.errors)
        truth = self._prior(1, "truth")
        self.y = self.seen(truth) + self._noise("observed", (1, len(self.seen)))
        first = self._prior(given.members, "members")
        perturbed = self.y + self._noise("perturbed", (given.members, len(self.seen)))
        self.mean = self._increment(self.y)
        self.exact = first + self._increment(perturbed - self.seen(first))

    def _noise(self, key: str, shape: tuple[int, ...]) -> Tensor:
        return MemberGenerator(self.seed, shape[0]).fork(key).randn(shape)

    def _prior(self, members: int, key: str) -> Tensor:
        return self.level.filter(self._noise(key, (members, *self.shape)), torch.sqrt)

    def _increment(self, d: Tensor) -> Tensor:
        """L H^T (1 + H L H^T)^-1 d."""
        seen = self.seen
        spread = lambda s: self.level.filter(seen.adjoint(s), lambda b: b)  # noqa: E731
        return spread(cg(lambda s: s + seen(spread(s)), d, LONGEST, enough=1e-6))

    def shares(self, drawn: Tensor) -> list[tuple[float, float]]:
        """Error of the mean over its expectation, variance over the exact one; by band."""
        found = []
        (error, own), (_, right) = (self._moments(states) for states in (drawn, self.exact))
        values = self.level.eigenvalues[: len(error)]
        for low, high in itertools.pairwise(BANDS):
            some = (values >= low) & (values < high)
            e, v, r = ((x[some] / values[some]).mean() for x in (error, own, right))
            found.append((float(e * len(drawn) / v), float(v / r)))
        return found

    def _moments(self, states: Tensor) -> tuple[Tensor, Tensor]:
        modes = self.level.analyse(states - self.mean)
        mean = modes.mean(0)
        return mean.abs().square(), (modes - mean).abs().square().sum(0) / (len(modes) - 1)


def told(name: str, shares: list[tuple[float, float]], seconds: float) -> str:
    """A line of the table."""
    cells = " | ".join(f"{bias:.2f}, {variance:.2f}" for bias, variance in shares)
    return f"| {name} | {cells} | {seconds:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = checkpoint.load(given.prior)
    problem = Problem(made, given)
    own = made.denoiser
    prior = Prior(PreconditionedDenoiser(Silent(), own.schedule, climatology=made.covariance,
                                         cond_channels=own.cond_channels).eval())  # fmt: skip
    seen = GaussianConstraint(problem.seen, problem.y, 1.0)
    print(
        "| mean's error, variance; modes of |",
        " | ".join(f"> {b:g}" for b in BANDS[:-1]),
        "| CPU s |",
    )
    print("|---" * (len(BANDS) + 1) + "|")
    print(told("exact draws", problem.shares(problem.exact), 0.0), flush=True)
    for text in given.settings:
        begun, streams = time.process_time(), MemberGenerator(given.seed, given.members)
        drawn = sampling_of(text).draw(prior, problem.shape, streams, observations=seen)
        print(told(text, problem.shares(drawn), time.process_time() - begun), flush=True)


if __name__ == "__main__":
    main()
