"""Train the network that corrects what matrices leave of a forecaster's errors.

    loss = mean_w |t - g - r F|^2 / mean_c r_c^2

with w the area and r a channel's root mean square of t - g: squared error in units of the climate's
spread, so that a channel counts as much as there is to correct. F and the rest: see
``gapzoo.forecasters.corrector``. It is small and its forecasts are made beforehand, so it needs
neither Lightning's trainer nor a resumable run: minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.core.precision import autocast
from gapzoo.core.random import derive_seed
from gapzoo.core.world import World
from gapzoo.forecasters.corrector import WIDTH, Corrector
from gapzoo.training.optimise import Optimisation, seeded

RATES = Optimisation(peak=2e-3, warmup=100, floor=0.0, weight_decay=1e-3)
CLIP = 1.0
SCALED = 240
"""Samples that the scales are taken from."""


@dataclass(frozen=True)
class Sample:
    """Forecasts, corrected linearly, from starts at times: fields are (N, C, H, W)."""

    forecast: Tensor
    start: Tensor
    flow: Tensor | None
    truth: Tensor
    times: pd.DatetimeIndex
    forcing: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How it is trained.

    Args:
        steps: of the optimiser; none where 0.
        batch: samples a step.
        width: of the network.
        seed: of weights and order.
    """

    steps: int = 0
    batch: int = 16
    width: int = WIDTH
    seed: int = 0


def train_corrector(
    begun: Corrector,
    read: Callable[[np.ndarray], Sample],
    rows: np.ndarray,
    plan: Plan,
    progress: Callable[[int], object],
) -> Corrector:
    """A corrector, trained.

    Args:
        begun: whose weights are trained, in place; its scales are found anew.
        read: gives the samples of these numbers.
        rows: (N,) numbers that there are to learn from.
        plan: see there.
        progress: called with the steps done.

    Raises:
        GapzooError: where the loss is not finite.
    """
    few = read(rows[np.linspace(0, len(rows) - 1, min(SCALED, len(rows))).astype(int)])
    begun.scale_to(few.forecast, few.start, few.flow, few.truth)
    network = begun.network.requires_grad_(True).train()
    optimizer, share = RATES.build(network), _share(begun)
    for step, batch in enumerate(_batches(rows, plan)):
        for group in optimizer.param_groups:
            group["lr"] = RATES.peak * RATES.factor(step, step / plan.steps)
        loss = _loss(begun, read(batch), share)
        if not torch.isfinite(loss):
            raise GapzooError(f"a corrector's loss is {loss.item()} at step {step + 1}")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        progress(1)
    network.requires_grad_(False).eval()
    return begun


def new_corrector(world: World, plan: Plan) -> Corrector:
    """One that is not trained."""
    with seeded(plan.seed, "corrector"):
        return Corrector.new(world, plan.width)


def _share(corrector: Corrector) -> Tensor:
    """(C, H, 1) what squares of F's error count."""
    power = corrector.network.error.square()
    area = torch.from_numpy(corrector.world.grid.area_weights).float()[:, None]
    return power / power.mean() * area


def _loss(corrector: Corrector, sample: Sample, share: Tensor) -> Tensor:
    told = corrector.fields(
        sample.forecast, sample.start, sample.flow, sample.times, sample.forcing
    )
    wrong = (sample.truth - sample.forecast) / corrector.network.error
    with autocast(told.device, torch.bfloat16):
        found = corrector.network(told)
    return ((wrong - found).square() * share).mean()


def _batches(rows: np.ndarray, plan: Plan) -> Iterator[np.ndarray]:
    """Sorted numbers of each step, every row once before any comes again."""
    random, left = np.random.default_rng(derive_seed(plan.seed, "corrector")), rows[:0]
    size = min(plan.batch, len(rows))
    for _ in range(plan.steps):
        if len(left) < size:
            left = random.permutation(rows)
        batch, left = left[:size], left[size:]
        yield np.sort(batch)
