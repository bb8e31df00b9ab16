"""Noisy states that tests of guidance denoise."""

import torch

LEVELS = torch.tensor([0.03, 0.5, 4.0, 60.0], dtype=torch.float64)


def noisy(schedule, dtype=torch.float64):
    """Four states at four noise levels: x_t (4,8,1,1), t (4,)."""
    x = 2 * torch.randn(4, 8, 1, 1, generator=torch.Generator().manual_seed(2), dtype=dtype)
    t = schedule.t_of_sigma(LEVELS.to(dtype))
    alpha, sigma = (v.reshape(4, 1, 1, 1) for v in schedule(t))
    return alpha * x + sigma * x.flip(0), t
