"""Priors side by side: denoising loss by noise level, size, speed, use of experts, analyses.

All denoise the same states, each as it normalises them, under the same noise, and errors count in
the same units: those of the training loss (:mod:`gapzoo.diffusion.loss`) around the first prior's
covariance. Beside them stands that covariance's Wiener filter, which is what they have before they
are trained.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapzoo.checkpoint import Checkpoint
from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader, world_of
from gapzoo.diffusion import DenoisingLoss, PreconditionedDenoiser
from gapzoo.diffusion.denoiser import Denoiser, Posterior
from gapzoo.diffusion.gaussian import GaussianDenoiser
from gapzoo.prepare import loss_weights
from gapzoo.training.module import spread_of_use
from gapzoo.training.optimise import generator_for

LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
"""Noise-to-signal ratios."""
SETTINGS = {"0.01": "1 %", "0.1": "10 %"}
"""Of the protocol of one-time analyses: shares of the columns that are observed."""
BATCH = 16
TIMED = 2
"""Passes that are timed, after one more."""
NONE = "no network"
Rows = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What priors are compared on.

    Args:
        archive: the store.
        period: first and last day of its states.
        states: how many, evenly spread.
        seed: of the noise.
        board: folder of the leaderboard's rows.
    """

    archive: Path
    period: tuple[str, str]
    states: int = 96
    seed: int = 0
    board: Path = Path("evaluation/leaderboard")

    def columns(self, priors: Sequence[Checkpoint]) -> dict[str, Rows]:
        """What is known of each prior and of the Wiener filter, by name.

        Raises:
            GapzooError: where there is none, or one does not fit the archive.
        """
        if not priors:
            raise GapzooError("nothing to compare; name checkpoints of priors")
        archive, first = Archive(self.archive), priors[0]
        name = self._fitting(archive, priors).name
        loss = DenoisingLoss(**loss_weights(first.world))
        unit = first.denoiser
        columns: dict[str, Rows] = {}
        if first.covariance is not None:
            nothing = GaussianDenoiser(torch.zeros(()), first.covariance, unit.schedule)
            batches = self._batches(Reader(archive, first.world))
            columns[NONE] = _losses(InUnitsOf(nothing, unit), loss, batches)
        for one in priors:
            use: list[Tensor] = []
            batches = self._batches(Reader(archive, one.world))
            rows = _size(one) | _speed(one, self._batches(Reader(archive, one.world)))
            rows |= _losses(InUnitsOf(one.denoiser, unit, use), loss, batches)
            columns[one.name] = rows | _experts(use) | self._analyses(one, name)
        return columns

    def _fitting(self, archive: Archive, priors: Sequence[Checkpoint]) -> World:
        """The archive's own world; all priors fit it."""
        world = world_of(archive, priors[0].world.channels.labels)
        for one in priors:
            world.require(one.world, f"checkpoint '{one.name}'")
        return world

    def _batches(self, reader: Reader) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """States (B,C,H,W), their condition, noise: the same at every call."""
        every = reader.archive.indices(*self.period)
        rows = every[np.linspace(0, len(every) - 1, min(self.states, len(every))).astype(int)]
        for number, some in enumerate(np.array_split(rows, -(-len(rows) // BATCH))):
            state = reader.state(some)
            noise = torch.randn(state.shape, generator=generator_for(self.seed, "compare", number))
            yield state, reader.condition(some), noise

    def _analyses(self, one: Checkpoint, world: str) -> Rows:
        """Scores that the leaderboard holds of these weights; of several rows, the first's."""
        for path in sorted(self.board.glob(f"analysis-{world}.*.json")):
            row = json.loads(path.read_text())
            if row.get("weights_sha256") == one.hash:
                known = {k: s["crps"] for k, s in row["scores"].items() if k in SETTINGS}
                return {f"analysis CRPS, {SETTINGS[k]}": f"{v:.3f}" for k, v in known.items()}
        return {}


def markdown(columns: dict[str, Rows]) -> str:
    """A table, a column a prior."""
    names = list(columns)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in dict.fromkeys(row for column in columns.values() for row in column):
        cells = [column.get(row, "") for column in columns.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class InUnitsOf(Denoiser):
    """A denoiser whose errors count in the units of another.

    Args:
        denoiser: what denoises.
        unit: whose error scale it is.
        use: gets the use of experts (layers, E) of every pass, where the network has them.
    """

    def __init__(
        self, denoiser: Denoiser, unit: PreconditionedDenoiser, use: list[Tensor] | None = None
    ) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.error_scale = (
            denoiser,
            denoiser.schedule,
            unit.error_scale,
        )
        self.use = use

    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Posterior:
        """As the denoiser."""
        found = self.denoiser(x_t, t, **cond)
        report = getattr(getattr(self.denoiser, "backbone", None), "expert_use", None)
        if self.use is not None and report is not None:
            self.use.append(report())
        return found


@torch.inference_mode()
def _losses(
    denoiser: Denoiser, loss: DenoisingLoss, batches: Iterator[tuple[Tensor, Tensor, Tensor]]
) -> Rows:
    sums, count = dict.fromkeys(LEVELS, 0.0), 0
    for state, cond, noise in batches:
        count += len(state)
        for level in LEVELS:
            ratio = torch.full((len(state),), level)
            value = loss.at(denoiser, state, noise, ratio, cond=cond)
            sums[level] += float(value.per_sample.sum())
    return {f"loss, noise {level:g}": f"{total / count:.4f}" for level, total in sums.items()}


def _size(one: Checkpoint) -> Rows:
    """Parameters, and what the card knows of training."""
    total = sum(p.numel() for p in one.network.parameters())
    active = total - int(getattr(one.network, "idle_parameters", 0))
    rows = {"parameters": f"{total:,}", "active parameters": f"{active:,}"}
    training = one.details.get("training", {})
    samples, minutes = training.get("samples"), training.get("minutes")
    rows |= {k: str(v) for k, v in (("samples", samples), ("minutes", minutes)) if v}
    return rows


def _speed(one: Checkpoint, batches: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Rows:
    """Samples a second of this process's time: the denoiser, forward and backward."""
    state, cond, noise = next(batches)
    denoiser, clock = copy.deepcopy(one.denoiser).requires_grad_(True), []
    for _ in range(TIMED + 1):
        clock.append(time.process_time())
        t = denoiser.schedule.t_of_sigma(torch.ones(len(state)))
        denoiser(state + noise, t, cond=cond).mean.square().mean().backward()
    spent = time.process_time() - clock[1]
    return {"samples a second": f"{TIMED * len(state) / spent:.1f}"}


def _experts(use: list[Tensor]) -> Rows:
    """Least and most used expert over all states and levels, 1 being even and 0 dead."""
    if not use:
        return {}
    spread = spread_of_use(torch.stack(use).mean(0))
    return {
        "least used expert (even: 1)": f"{float(spread['least_use']):.2f}",
        "most used expert": f"{float(spread['most_use']):.2f}",
    }
