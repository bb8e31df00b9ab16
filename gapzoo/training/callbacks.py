"""Callbacks: checkpoints that survive a kill, a budget of minutes, samples a second."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from gapzoo.training.runlog import RunLog


class RunCheckpoint(Callback):
    """Write ``last.ckpt`` now and then and at the end, whole or not at all; list it last.

    The file is written beside its place and then renamed, so a kill leaves the one before.

    Args:
        folder: where ``last.ckpt`` goes.
        minutes: time between two writings.
        steps: steps between two writings, or None.
    """

    def __init__(self, folder: Path, minutes: float = 5.0, steps: int | None = None) -> None:
        self.path, self.minutes, self.steps = Path(folder) / "last.ckpt", minutes, steps
        self._last, self._saved = time.monotonic(), -1

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the checkpoint now."""
        self._last, self._saved = time.monotonic(), trainer.global_step
        beside = self.path.with_suffix(".writing")
        trainer.save_checkpoint(beside)
        if trainer.is_global_zero:
            os.replace(beside, self.path)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write where it is due."""
        due = time.monotonic() - self._last > 60 * self.minutes
        due = due or bool(self.steps and trainer.global_step % self.steps == 0)
        due = due or trainer.should_stop or trainer.global_step == trainer.max_steps
        due = trainer.strategy.broadcast(due)
        if due and trainer.global_step != self._saved:
            self.save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write the last state."""
        if trainer.global_step != self._saved:
            self.save(trainer)


class TimeBudget(Callback):
    """Stop after so many minutes of training, counted over resumed runs.

    The share that is spent goes to the module, whose learning rate falls with it.

    Args:
        minutes: the budget.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes, self.spent, self._last = minutes, 0.0, time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the clock."""
        self._last, module.elapsed = time.monotonic(), min(1.0, self.spent / self.minutes)
        trainer.should_stop = trainer.should_stop or self.spent >= self.minutes

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *_: Any) -> None:
        """Count; stop at the end of the budget."""
        now = time.monotonic()
        self.spent, self._last = self.spent + (now - self._last) / 60, now
        self.spent = trainer.strategy.broadcast(self.spent)
        module.elapsed = min(1.0, self.spent / self.minutes)
        trainer.should_stop = trainer.should_stop or self.spent >= self.minutes

    def state_dict(self) -> dict[str, Any]:
        """Minutes spent."""
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the clock where it stood."""
        self.spent = state_dict["spent"]


class Throughput(Callback):
    """Log the learning rate, and samples a second and in all, by all processes together.

    ``samples`` and ``minutes`` count over resumed runs.
    """

    def __init__(self) -> None:
        self.samples, self.minutes, self._recent = 0, 0.0, 0
        self._last = self._logged = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the clock; take the logs back to where the run resumes."""
        self._recent = 0
        self._last = self._logged = time.monotonic()
        for logger in trainer.loggers:
            if isinstance(logger, RunLog):
                logger.rewind(trainer.global_step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count a batch; log where logging is due."""
        now = time.monotonic()
        self.minutes, self._last = self.minutes + (now - self._last) / 60, now
        count = len(batch["state"]) * trainer.world_size
        self.samples, self._recent = self.samples + count, self._recent + count
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            rate = self._recent / (now - self._logged)
            self._recent, self._logged = 0, now
            module.log("samples/s", rate, prog_bar=True, logger=False)
            values = {"samples_per_second": rate, "samples": self.samples}
            values["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
            module.record(trainer.global_step, "run", values)

    def state_dict(self) -> dict[str, Any]:
        """Samples seen, minutes spent."""
        return {"samples": self.samples, "minutes": self.minutes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.samples, self.minutes = state_dict["samples"], state_dict.get("minutes", 0.0)
