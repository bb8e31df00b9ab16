"""Grid search over a baseline's settings: a baseline is only worth beating when it is tuned."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gapzoo.baselines.optimal_interpolation import OptimalInterpolation
from gapzoo.core import Channels, GapzooError, Grid, MemberGenerator
from gapzoo.evaluators.crps import ensemble_crps


def search(
    score: Callable[..., float], options: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Try every combination of ``options`` and keep the one of least ``score(**combination)``.

    Returns:
        The best combination, and a table of all with a column ``score``, best first. A score
        that is not finite loses.

    Raises:
        GapzooError: where no combination has a finite score.
    """
    names = list(options)
    rows = [dict(zip(names, c, strict=True)) for c in itertools.product(*options.values())]
    table = pd.DataFrame([{**row, "score": score(**row)} for row in rows])
    table = table.sort_values("score", na_position="last", kind="stable")
    if not pd.Series(table["score"]).map(torch.tensor).map(torch.isfinite).any():
        raise GapzooError("no combination gave a finite score; widen the options")
    return rows[int(table.index[0])], table.reset_index(drop=True)


def tune_optimal_interpolation(
    sample: Tensor,
    grid: Grid,
    channels: Channels,
    cases: Sequence[tuple[Tensor, Any, Tensor, Tensor]],
    generator: MemberGenerator,
    options: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Choose localisation and inflation by fair CRPS on validation cases.

    Args:
        sample: (S,C,H,W) states of the training years.
        cases: one entry a network: truth (B,C,H,W), operator, errors (N,), observations (B,N).
        generator: the members to draw.
        options: values to try by argument of OptimalInterpolation; a default set of lengths.

    Returns:
        The best settings, and the table of all. The score is the mean over networks, cases,
        channels and area of CRPS divided by the channel's spread in the sample.
    """
    options = options or {"length": [2e6, 3e6, 4e6, 6e6], "tail": [0.0, 0.1]}
    spread = (sample - sample.mean(0)).square().mean((0, 2, 3)).sqrt()[:, None, None]
    area = torch.as_tensor(grid.area_weights, dtype=sample.dtype).unsqueeze(-1)

    def score(**settings: Any) -> float:
        prior = OptimalInterpolation(sample, grid, channels, **settings)
        total = 0.0
        for truth, operator, errors, y in cases:
            members = prior.network(operator, errors).members(y, generator.fork("tune"))
            total += float((ensemble_crps(members, truth) / spread * area).mean())
        return total / len(cases)

    return search(score, options)
