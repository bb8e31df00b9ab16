"""The training loop: one Lightning Trainer for every module, its run folder, its resuming.

A run folder holds ``last.ckpt`` (weights, average, optimiser, counters), ``metrics.csv`` and
TensorBoard's events.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gapzoo.core import GapzooError
from gapzoo.training.callbacks import RunCheckpoint, Throughput, TimeBudget
from gapzoo.training.devices import strategy_of
from gapzoo.training.runlog import RunLog


def train(
    module: lightning.LightningModule,
    data: Any,
    run_dir: str | Path,
    *,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    clip: float = 1.0,
    validate_every: int | None = None,
    validate_batches: int | float = 1.0,
    checkpoint_minutes: float = 5.0,
    checkpoint_steps: int | None = None,
    validate_first: bool = False,
    log_every: int = 50,
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
    callbacks: list[Callback] | None = None,
    **trainer: Any,
) -> lightning.Trainer:
    """Train a module until its budget of steps or minutes is spent.

    Args:
        module: a denoiser or a forecaster.
        data: a LightningDataModule, or an iterable of batches.
        run_dir: the run folder, made where it is missing.
        max_steps: budget of optimiser steps.
        max_minutes: budget of wall-clock minutes, over all resumed parts.
        resume: go on from the run folder's ``last.ckpt``.
        clip: largest norm of the gradient.
        validate_every: steps between validations, or None for one an epoch.
        validate_batches: batches (or their share) of a validation.
        checkpoint_minutes, checkpoint_steps: how often ``last.ckpt`` is written.
        validate_first: validate before the first step too.
        log_every: steps between rows of the logs.
        devices, num_nodes, strategy: see :mod:`gapzoo.training.devices`.
        callbacks: more callbacks.
        trainer: more arguments of ``lightning.Trainer``.

    Returns:
        The Trainer, after fitting.

    Raises:
        GapzooError: without a budget, or where there is nothing to resume.
        SystemExit: with 143, where the process was told to end (SIGTERM); the run can be resumed.
    """
    folder = Path(run_dir)
    if max_steps is None and max_minutes is None:
        raise GapzooError("no budget; give max_steps or max_minutes")
    extra: list[Callback] = [] if max_minutes is None else [TimeBudget(max_minutes)]
    saver = RunCheckpoint(folder, checkpoint_minutes, checkpoint_steps)
    every: dict[str, Any] = {}
    if validate_every is not None:
        every = {"val_check_interval": validate_every, "check_val_every_n_epoch": None}
    if trainer.get("enable_progress_bar", True):
        extra.append(_bar())
    options: dict[str, Any] = {
        "max_steps": -1 if max_steps is None else max_steps,
        "max_epochs": -1,
        "gradient_clip_val": clip,
        "limit_val_batches": validate_batches,
        "num_sanity_val_steps": -1 if validate_first else 0,
        "log_every_n_steps": log_every,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "logger": _loggers(folder),
        "devices": devices,
        "num_nodes": num_nodes,
        "strategy": strategy_of(strategy, devices, num_nodes),
        "callbacks": [*extra, Throughput(), *(callbacks or []), saver],
    }
    loop = lightning.Trainer(**(options | every | trainer))
    try:
        loop.fit(module, data, ckpt_path=_start(folder, resume), weights_only=True)
    except SIGTERMException:  # an exit without a code, which reads as a run that is done
        raise SystemExit(128 + signal.SIGTERM) from None
    return loop


def _bar() -> TQDMProgressBar:
    """To show a loss is to wait for a GPU, which should have the next steps in hand by then."""
    return TQDMProgressBar(refresh_rate=20 if torch.cuda.is_available() else 1)


def _loggers(folder: Path) -> list[Any]:
    return [RunLog(folder), TensorBoardLogger(folder.parent, folder.name, version="")]


def _start(folder: Path, resume: bool) -> Path | None:
    last = folder / "last.ckpt"
    if resume and not last.exists():
        raise GapzooError(f"nothing to resume: {last} does not exist; start without resume")
    if not resume and last.exists():
        raise GapzooError(f"{last} exists; resume it, or choose another run folder")
    folder.mkdir(parents=True, exist_ok=True)
    return last if resume else None
