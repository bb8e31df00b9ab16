"""3D-Var with a static covariance B from a sample of states or of forecast differences.

    J(x) = 1/2 (x - x_b)^T B^-1 (x - x_b) + 1/2 |(y - H x) / errors|^2.

For a linear operator the minimum is x_b + K (y - H x_b), in observation space (Courtier 1997),
localised. For any differentiable operator J is minimised in the space of the sample's anomalies
X, x = x_b + a X^T v with a^2 = scale / (S - 1), where the first term is |v|^2 / 2 (L-BFGS).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gapzoo.baselines import BASELINES
from gapzoo.baselines.gain import Gain
from gapzoo.baselines.localisation import Locality
from gapzoo.core import GapzooError


@BASELINES.register("var3d")
class Var3D:
    """The static covariance.

    Args:
        sample: (S,C,H,W), its anomalies make B.
        scale: factor on their covariance, to be tuned: forecasts err less than the climate varies.
        locality: how B is localised (linear operators only); none if left out.
        iterations: at most, of L-BFGS.
    """

    def __init__(
        self,
        sample: Tensor,
        *,
        scale: float = 1.0,
        locality: Locality | None = None,
        iterations: int = 100,
    ) -> None:
        if scale <= 0 or len(sample) < 2:
            raise GapzooError(f"scale {scale}, {len(sample)} states; give scale above 0, 2 states")
        self.sample, self.scale, self.locality = sample, scale, locality
        self.iterations = iterations
        self._network: tuple[Any, Tensor, Gain] | None = None

    def analyse(self, background: Tensor, operator: Any, y: Tensor, errors: Tensor) -> Tensor:
        """Analysis (B,C,H,W) for a linear operator, from y (B,N) or (N,).

        The factor is kept as long as the same ``operator`` and ``errors`` come back.
        """
        known = self._network
        if known is None or known[0] is not operator or known[1] is not errors:
            gain = Gain(self.sample, operator, errors, self.locality, self.scale)
            known = self._network = (operator, errors, gain)
        return background + known[2].increment(y - operator(background))

    def minimise(self, background: Tensor, operator: Any, y: Tensor, errors: Tensor) -> Tensor:
        """Analysis (B,C,H,W) for any differentiable operator, without localisation."""
        if self.locality is not None:
            raise GapzooError("minimise() knows no localisation; build Var3D without a locality")
        scale = math.sqrt(self.scale / (len(self.sample) - 1))
        basis = scale * (self.sample - self.sample.mean(0))
        control = torch.zeros(len(background), len(basis)).to(basis).requires_grad_()
        search = torch.optim.LBFGS(
            [control], max_iter=self.iterations, line_search_fn="strong_wolfe",
            history_size=20, tolerance_grad=1e-6, tolerance_change=1e-10,
        )  # fmt: skip

        def state() -> Tensor:
            return background + torch.tensordot(control, basis, 1)

        def cost() -> Tensor:
            search.zero_grad()
            misfit = (y - operator(state())) / errors
            total = 0.5 * (control.square().sum() + misfit.square().sum())
            total.backward()
            return total

        search.step(cost)  # type: ignore[arg-type]
        return state().detach()
