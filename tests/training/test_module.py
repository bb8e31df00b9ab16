"""The diffusion module: a plain Trainer learns a known prior; what it logs; what it keeps."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from gapzoo.core import GapzooError
from gapzoo.diffusion import LossValue
from gapzoo.training import Optimisation, UNetDenoiser
from gapzoo.training.levels import LossByLevel

H, W = 4, 16
TINY = {"widths": (16,), "blocks": (1,), "attention": 0, "embedding": 32}


def spectrum() -> torch.Tensor:
    """(W,) variances of the zonal Fourier modes, mean 1: white in latitude, red in longitude."""
    k = torch.fft.fftfreq(W, 1 / W, dtype=torch.float64).abs()
    power = 1 / (1 + (k / 1.5) ** 4)
    return power / power.mean()


def fields(count: int, seed: int) -> torch.Tensor:
    """(count, 1, H, W) Gaussian random fields of unit variance with that spectrum."""
    z = torch.randn(count, 1, H, W, generator=torch.Generator().manual_seed(seed))
    return torch.fft.ifft(torch.fft.fft(z) * spectrum().sqrt()).real.float()


def optimal(ratio: float) -> float:
    """EDM-weighted loss of the exact denoiser: (r^2 + 1) / r^2 times the posterior variance."""
    power, square = spectrum(), ratio**2
    return float((square + 1) / square * (power * square / (power + square)).mean())


def fit(module, steps, batch=16):
    data = [{"state": fields(batch, seed)} for seed in range(steps)]
    loop = lightning.Trainer(
        max_steps=steps, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, accelerator="cpu", gradient_clip_val=1.0,
    )  # fmt: skip
    loop.fit(module, DataLoader(data, batch_size=None))


def test_training_approaches_the_exact_denoiser_of_a_gaussian_prior():
    """A quarter of the way and less is left between no network (loss 1) and the exact denoiser."""
    options = Optimisation(peak=1e-2, warmup=20, decay=0.98)
    module = UNetDenoiser(channels=1, architecture=TINY, precision="fp32", optimisation=options)
    x, noise = fields(256, 10_000), torch.randn(256, 1, H, W, generator=torch.Generator())
    fit(module, 250)
    for ratio in (0.3, 1.0, 3.0):
        with torch.no_grad():
            value = module.loss.at(module.averaged, x, noise, torch.full((256,), ratio))
        exact = optimal(ratio)
        noise_of_estimate = 4 * value.per_sample.std().item() / 16
        assert exact - noise_of_estimate < value.loss.item() < exact + 0.25 * (1 - exact)


def test_the_average_lags_behind_the_trained_weights_and_is_what_is_kept():
    module = UNetDenoiser(channels=1, architecture=TINY, precision="fp32")
    fit(module, 3, batch=2)
    trained, kept = module.denoiser.backbone.head.weight, module.backbone.head.weight
    assert module.backbone is module.averaged.backbone
    assert not torch.equal(trained, kept)
    assert not kept.requires_grad
    assert not module.train().averaged.training


def test_initial_weights_depend_on_the_seed_alone():
    def stem(seed):
        return UNetDenoiser(channels=1, architecture=TINY, seed=seed).backbone.stem.weight

    torch.manual_seed(1)
    first = stem(0)
    torch.manual_seed(2)
    assert torch.equal(stem(0), first)
    assert not torch.equal(stem(1), first)


def test_auxiliary_loss_is_added():
    module = UNetDenoiser(channels=1, architecture=TINY, precision="fp32")
    data = {"state": fields(2, 0)}
    module.trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    module.log = lambda *_, **__: None
    plain = module.training_step(data, 0)
    module.denoiser.backbone.aux_loss = lambda: torch.tensor(0.25)
    assert (module.training_step(data, 0) - plain).item() == pytest.approx(0.25)


def test_loss_by_level_streams_and_merges():
    def value(ratio, loss):
        per = torch.tensor(loss)
        return LossValue(per.mean(), per, torch.tensor(ratio))

    levels = LossByLevel((0.5, 2.0))
    levels.update(value([0.1, 1.0], [2.0, 4.0]))
    levels.update(value([0.2], [5.0]))
    result = {k: v.item() for k, v in levels.compute().items()}
    assert result == pytest.approx({"loss": 11 / 3, "loss_0_0.5": 3.5, "loss_0.5_2": 4.0})


def test_an_unknown_precision_names_the_nearest():
    with pytest.raises(GapzooError, match=r"precision 'fp16'; did you mean 'bf16'"):
        UNetDenoiser(channels=1, architecture=TINY, precision="fp16")
