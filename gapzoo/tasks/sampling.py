"""How a posterior is drawn from: the settings that every task shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator, nearest
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.samplers import SAMPLERS


class NotFinite(GapzooError):
    """Sampling gave states that are not finite."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampler and guidance.

    Args:
        sampler: registered name.
        steps: sampler steps.
        sampler_options: its other arguments.
        guidance: registered name of the method that takes in constraints; None is the one that
            suits the prior (``Prior.given``).
        guidance_options: its arguments.
        moments: give the denoiser back what its output lacks of its input, as measured
            (:mod:`gapzoo.diffusion.moments`); None does so where it was.
        learned: share of what the network knows beyond its climatology's Gaussian, 0 to 1.
        batch: members drawn side by side; changes memory, not results.
    """

    sampler: str = "dpmpp_2m"
    steps: int = 16
    sampler_options: dict[str, Any] = field(default_factory=dict)
    guidance: str | None = None
    guidance_options: dict[str, Any] = field(default_factory=dict)
    moments: bool | None = None
    learned: float = 1.0
    batch: int = 16

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Sampling:
        """From options by name; unknown ones are refused."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise GapzooError(f"no sampling option '{name}'; {nearest(name, known)}")
        return cls(**options)

    def draw(
        self,
        prior: Prior,
        shape: tuple[int, int, int],
        generator: MemberGenerator,
        **constraints: Any,
    ) -> Tensor:
        """One state (M, C, H, W) a member of the generator, on its device.

        The prior computes where it is; what constrains it is taken there.

        Args:
            prior: to draw from.
            shape: (C, H, W) of a state.
            generator: a stream a member.
            constraints: ``observations``, ``forecast`` and ``forcing`` of ``Prior.given``, or a
                function of a slice of members that gives them.

        Raises:
            NotFinite: where a drawn state is not.
        """
        parts, start = [], 0
        device = next((p.device for p in prior.denoiser.parameters()), generator.device)
        for part in generator.split(self.batch):
            streams = part.to(device)
            rows = slice(start, start + len(streams))
            given = {k: v(rows) if callable(v) else v for k, v in constraints.items()}
            given = {k: placed(v, device) for k, v in given.items()}
            posterior = self._posterior(prior, given)
            sampler = self._sampler(posterior)
            parts.append(sampler(shape=(len(streams), *shape), generator=streams))
            start += len(streams)
        return _finite(torch.cat(parts).to(generator.device), self, generator.members)

    def _posterior(self, prior: Prior, given: dict[str, Any]) -> Denoiser:
        own: dict[str, Any] = {"guidance": self.guidance, "moments": self.moments}
        own["learned"] = self.learned
        return prior.given(**given, **own, **self.guidance_options)

    def _sampler(self, posterior: Denoiser) -> Any:
        options = self.sampler_options
        return SAMPLERS.build(self.sampler, denoiser=posterior, steps=self.steps, **options)


def placed(value: Any, device: torch.device) -> Any:
    """A value with its tensors on a device: tensors, and dataclasses, lists and tuples of them.

    Covariances follow what they act on by themselves.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)([placed(part, device) for part in value])
    if is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value) if f.init]
        return replace(value, **{n: placed(getattr(value, n), device) for n in names})
    return value


def _finite(states: Tensor, sampling: Sampling, every: Sequence[int]) -> Tensor:
    bad = ~torch.isfinite(states).flatten(1).all(1)
    if bad.any():
        members = [every[row] for row in bad.nonzero().flatten().tolist()]
        raise NotFinite(
            f"members {members} are not finite with guidance '{sampling.guidance or 'default'}' "
            f"and {sampling.steps} steps; take more steps, or another guidance"
        )
    return states
