"""Optimisation: AdamW or Muon under a warmed-up cosine, and the running average of the weights.

Muon (Jordan et al. 2024) makes the momentum of every matrix and kernel (flattened to one)
orthogonal before it steps, scaled to AdamW's usual size; vectors, and what is far from square when
flattened, such as the banks of sparse experts (E, in, out), take NAdamW's steps. timm's, whose
iterations are in bfloat16: in float32 here where a processor would emulate that.

With d in [0, 1] the share of the budget that is spent and n the steps done, the learning rate is

    lr(n) = peak min(1, (n + 1) / warmup) (floor + (1 - floor) (1 + cos(pi d)) / 2).

The average (Karras et al. 2024, arXiv 2312.02696, section 3, in its plain form) after step n is

    w_bar <- w_bar + (1 - b) (w - w_bar),   b = min(decay, n / (n + 9)),

so that the first steps, which are the worst, are soon forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.optim import Muon, muon
from torch import Tensor, nn

from gapzoo.core import GapzooError, nearest, precision
from gapzoo.core.random import derive_seed
from gapzoo.training.devices import own_part

OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights are moved.

    Args:
        optimizer: ``adamw`` or ``muon``.
        peak: highest learning rate.
        warmup: steps until it is reached.
        floor: last learning rate, as a share of the peak.
        weight_decay: on matrices and kernels alone.
        betas: AdamW's memory of gradients and of their squares.
        decay: highest memory of the running average of the weights, a step.

    Raises:
        GapzooError: where a value is out of range.
    """

    optimizer: str = "adamw"
    peak: float = 1e-3
    warmup: int = 200
    floor: float = 0.01
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.999

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            wrong = nearest(self.optimizer, OPTIMIZERS)
            raise GapzooError(f"optimisation: no optimizer '{self.optimizer}'; {wrong}")
        checks = {
            "peak": self.peak > 0,
            "warmup": self.warmup >= 0,
            "floor": 0 <= self.floor <= 1,
            "weight_decay": self.weight_decay >= 0,
            "decay": 0 <= self.decay < 1,
        }
        for name, fine in checks.items():
            if not fine:
                raise GapzooError(f"optimisation: {name} is {getattr(self, name)}, out of range")

    def factor(self, step: int, done: float) -> float:
        """Learning rate over its peak, after ``step`` steps and ``done`` of the budget."""
        cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return warm * (self.floor + (1 - self.floor) * cosine)

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the parameters that are trained."""
        trained = [p for p in module.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.peak, betas=self.betas, fused=True)
        for group in groups:
            group["use_fallback"] = group["params"][0].ndim <= 1
        kind = Muon if precision.native(trained[0].device) else _FloatMuon
        return kind(groups, lr=self.peak, betas=self.betas, nesterov=True)


class _FloatMuon(Muon):
    """Muon with its iterations in float32, for which timm has no argument."""

    def step(self, closure: Any = None) -> Any:
        """See torch."""
        kept = muon.zeropower_via_newtonschulz
        muon.zeropower_via_newtonschulz = partial(kept, dtype=torch.float32)
        try:
            return super().step(closure)
        finally:
            muon.zeropower_via_newtonschulz = kept


@torch.no_grad()
def average(averaged: nn.Module, module: nn.Module, step: int, decay: float) -> None:
    """Draw ``averaged`` towards ``module`` after step number ``step`` (1, 2, ...), in place."""
    share = 1 - min(decay, step / (step + 9))
    pairs = list(zip(averaged.parameters(), module.parameters(), strict=True))
    means, latest = ([own_part(t.detach()) for t in side] for side in zip(*pairs, strict=True))
    torch._foreach_lerp_(means, latest, share)
    for mean, buffer in zip(averaged.buffers(), module.buffers(), strict=True):
        mean.copy_(buffer)


@contextmanager
def seeded(seed: int, *keys: object, device: torch.device | None = None) -> Iterator[None]:
    """Seed the layers that draw from torch's own stream (dropout, initial weights) for a while.

    The stream is put back afterwards, so that nothing outside notices.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive_seed(seed, *keys))
        yield


def generator_for(seed: int, *keys: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device`` whose numbers depend on the seed and every key."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *keys))


def drop_condition(
    cond: Tensor, share: float, generator: torch.Generator, part: tuple[int, int] = (0, 1)
) -> Tensor:
    """Set the condition (B,K,H,W) of a random ``share`` of the samples to zero.

    ``part`` is as in :class:`gapzoo.diffusion.DenoisingLoss`.
    """
    rank, size = part
    drawn = torch.rand(len(cond) * size, generator=generator, device=generator.device)
    return cond * (drawn[rank::size] >= share).to(cond)[:, None, None, None]
