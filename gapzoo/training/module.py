"""One Lightning module for every backbone: the loss, the average, the steps.

A batch is a dict with ``state`` (B,C,H,W) float32, normalised, and ``cond`` (B,K,H,W) (absent
where K is 0). The noise of a step comes from (seed, step, row of the whole batch) alone, so that a
resumed run draws what an uninterrupted one would have drawn, and so do several processes together
(all but their dropout layers, whose masks differ by process). The module has two denoisers:
``denoiser`` is trained, ``averaged`` is the running average of its weights; it validates, and it is
what one keeps.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from gapzoo.core import GapzooError, nearest
from gapzoo.diffusion import SCHEDULES, DenoisingLoss, PreconditionedDenoiser, Schedule
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.training.devices import shard
from gapzoo.training.levels import LossByLevel
from gapzoo.training.optimise import Optimisation, average, drop_condition, generator_for, seeded

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


class TrainedModule(lightning.LightningModule):
    """What every trained network shares: optimiser, schedule, average, seeds.

    Args:
        optimisation: learning rates and averaging.
        seed: seed of everything that training draws.
    """

    elapsed = 0.0
    """Share of a time budget that is spent; kept by the time budget's callback."""
    averaged: Any

    def __init__(self, optimisation: Optimisation | None = None, seed: int = 0) -> None:
        super().__init__()
        self.optimisation, self.seed = optimisation or Optimisation(), seed
        self.train_levels, self.val_levels = self.new_levels(), self.new_levels()
        self.train_levels.persistent(True)  # so that the log of a resumed run is the same

    level = "noise"
    """What the parts of the loss are parted by, as people say it."""

    def new_levels(self) -> Metric:
        """A running mean of the loss, and of its parts, as a dict with ``loss``."""
        raise NotImplementedError

    @property
    def trained(self) -> nn.Module:
        """The network whose weights move."""
        raise NotImplementedError

    @property
    def kept(self) -> nn.Module:
        """Its running average."""
        raise NotImplementedError

    @property
    def live(self) -> nn.Module:
        """The backbone whose weights move; ``backbone`` is its running average."""
        raise NotImplementedError

    def example(self, state: Tensor, cond: Tensor) -> Tensor:
        """What training computes of (B,C,H,W) states and their condition, at one noise or lead."""
        raise NotImplementedError

    def restart_average(self) -> None:
        """Make the average a copy of what is trained, as before the first step."""
        self.averaged = copy.deepcopy(self.trained).requires_grad_(False).eval()

    @property
    def done(self) -> float:
        """Share of the budget of steps or minutes that is spent."""
        limit = self.trainer.max_steps
        return max(self.elapsed, self.trainer.global_step / limit if limit > 0 else 0.0)

    def configure_optimizers(self) -> Any:
        """AdamW, its rate set after every step."""
        optimizer = self.optimisation.build(self.trained)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimisation.factor(step, self.done)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average and log."""
        super().optimizer_step(*args, **kwargs)
        step = self.trainer.global_step + 1
        average(self.kept, self.trained, step, self.optimisation.decay)
        if step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.record(step, "train", {**self.train_levels.compute(), **self.extras()})
            self.train_levels.reset()

    def extras(self) -> dict[str, Any]:
        """More numbers for the log of training."""
        return {}

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss, overall and by level."""
        values = self.val_levels.compute()
        self.val_levels.reset()
        self.log("val/loss", values["loss"], logger=False)
        self.record(self.trainer.global_step, "val", values)

    def record(self, step: int, stage: str, values: Mapping[str, Any]) -> None:
        """Write numbers to every log; ``step`` counts the finished steps.

        Lightning's own logging repeats stale values of bins that stayed empty, and counts otherwise
        after resuming.
        """
        for logger in self.loggers:
            logger.log_metrics({f"{stage}/{k}": float(v) for k, v in values.items()}, step)

    def keys(self, batch_index: int) -> tuple[object, ...]:
        """What the random numbers of a training step depend on, beside the seed."""
        part = batch_index % self.trainer.accumulate_grad_batches
        return ("train", self.trainer.global_step, part)

    @property
    def part(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return self.global_rank, self.trainer.world_size

    def touched(self, loss: Tensor) -> Tensor:
        """The loss with zero times every weight added, where gradients are averaged over processes.

        They wait for one another's gradients, and of experts a process may meet none of some.
        """
        if self.trainer.world_size == 1 or self.sharded:
            return loss
        return loss + 0.0 * sum(p.sum() for p in self.trained.parameters() if p.requires_grad)

    @property
    def sharded(self) -> bool:
        """Whether weights are spread over processes (strategy ``fsdp``)."""
        return self.device_mesh is not None

    def configure_model(self) -> None:
        """Spread the weights over the processes, block by block, where the strategy asks for it."""
        if self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        for network in (self.trained, self.kept):
            shard(network, mesh)


class DiffusionModule(TrainedModule):
    """Train any backbone as a denoiser.

    Args:
        backbone: ``forward(x (B,C,H,W), c_noise (B,), cond | None) -> (B,C,H,W)``.
        schedule: name of a noise schedule, or one.
        loss: the loss; by default EDM's with ``sigma_data``.
        sigma_data: standard deviation of the normalised states.
        precision: ``bf16`` or ``fp32``, of the network alone.
        climatology: covariance of the data, for the Wiener skip; see PreconditionedDenoiser.
        cond_channels: K, channels of the batch's condition; needed with a climatology.
        cond_dropout: share of training samples whose condition is set to zero.
        optimisation, seed: see :class:`TrainedModule`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        schedule: str | Schedule = "edm",
        loss: DenoisingLoss | None = None,
        sigma_data: float = 1.0,
        precision: str = "bf16",
        cond_dropout: float = 0.1,
        climatology: ZonalCovariance | None = None,
        cond_channels: int = 0,
        optimisation: Optimisation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimisation, seed)
        if precision not in PRECISIONS:
            raise GapzooError(f"precision '{precision}'; {nearest(precision, PRECISIONS)}")
        noise = SCHEDULES.build(schedule) if isinstance(schedule, str) else schedule
        self.loss = loss or DenoisingLoss(sigma_data=sigma_data)
        self.denoiser = PreconditionedDenoiser(
            backbone,
            noise,
            sigma_data,
            autocast=PRECISIONS[precision],
            climatology=climatology,
            cond_channels=cond_channels,
            shaped=climatology is not None,
        )
        self.restart_average()
        self.cond_dropout = cond_dropout
        self.use: list[Tensor] = []

    def new_levels(self) -> Metric:
        """The loss by noise level."""
        return LossByLevel()

    @property
    def trained(self) -> nn.Module:
        """The denoiser whose weights move."""
        return self.denoiser

    @property
    def kept(self) -> nn.Module:
        """Its running average."""
        return self.averaged

    @property
    def live(self) -> nn.Module:
        """The backbone whose weights move."""
        return self.denoiser.backbone

    @property
    def backbone(self) -> nn.Module:
        """The averaged backbone: what a checkpoint holds."""
        return self.averaged.backbone

    def extras(self) -> dict[str, Any]:
        """Of a mixture, the least and the most used expert's share of the last batch, times E."""
        report = getattr(self.live, "expert_use", None)
        return {} if report is None else spread_of_use(report())

    def example(self, state: Tensor, cond: Tensor) -> Tensor:
        """Denoised states."""
        return self.denoiser(state, torch.tensor(0.5), cond=cond).mean

    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Any:
        """The averaged denoiser's posterior; see :class:`gapzoo.diffusion.Denoiser`."""
        return self.averaged(x_t, t, **cond)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch, with the auxiliary loss of backbones that have one."""
        keys = self.keys(batch_idx)
        generator = generator_for(self.seed, *keys, device=self.device)
        cond = batch.get("cond")
        if cond is not None and self.cond_dropout:
            cond = drop_condition(cond, self.cond_dropout, generator, self.part)
        with seeded(self.seed, *keys, self.global_rank, "layers", device=self.device):
            value = self.loss(self.denoiser, batch["state"], generator, self.part, cond=cond)
        self.log("loss", value.loss, prog_bar=True, logger=False)
        self.train_levels.update(value)
        auxiliary = getattr(self.denoiser.backbone, "aux_loss", None)
        return self.touched(value.loss if auxiliary is None else value.loss + auxiliary())

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss of the averaged denoiser, with the same noise at every validation."""
        generator = generator_for(self.seed, "validate", batch_idx, device=self.device)
        state, cond = batch["state"], batch.get("cond")
        self.val_levels.update(self.loss(self.averaged, state, generator, cond=cond))
        report = getattr(self.backbone, "expert_use", None)
        if report is not None:
            self.use.append(report())

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss, and how evenly experts are used over all of its batches."""
        super().on_validation_epoch_end()
        if self.use:
            values = spread_of_use(torch.stack(self.use).mean(0))
            self.record(self.trainer.global_step, "val", values)
            self.use.clear()

    def train(self, mode: bool = True) -> DiffusionModule:
        """Set training mode; the average stays in evaluation mode."""
        super().train(mode)
        self.averaged.eval()
        return self


def spread_of_use(use: Tensor) -> dict[str, Tensor]:
    """Least and greatest share (layers, E) of an expert, 1 being even and 0 dead."""
    return {"least_use": use.min() * use.shape[-1], "most_use": use.max() * use.shape[-1]}


def new_backbone(seed: int, build: Any, **arguments: Any) -> nn.Module:
    """Build a network whose initial weights depend on ``seed`` alone."""
    with seeded(seed, "weights"):
        return build(**arguments)
