"""EnKF with perturbed observations (Burgers et al. 1998).

    x_a,i = x_i + K (y + e_i - H x_i),      e_i ~ N(0, R), of zero mean over the members,

with the gain K of the inflated background ensemble's localised covariance (``gain``).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gapzoo.baselines import BASELINES
from gapzoo.baselines.gain import Gain
from gapzoo.baselines.localisation import Locality
from gapzoo.core import GapzooError, MemberGenerator


@BASELINES.register("enkf")
class EnKF:
    """The filter's settings.

    Args:
        locality: how covariances are localised; none if left out.
        inflation: factor on the background anomalies.
    """

    def __init__(self, locality: Locality | None = None, *, inflation: float = 1.0) -> None:
        if inflation <= 0:
            raise GapzooError(f"inflation {inflation}; give one above 0, 1 for none")
        self.locality, self.inflation = locality, inflation

    def analyse(
        self,
        ensemble: Tensor,
        operator: Any,
        y: Tensor,
        errors: Tensor,
        generator: MemberGenerator,
    ) -> Tensor:
        """Analysis (M,C,H,W) of a background (M,C,H,W) and observations (N,)."""
        mean, members = ensemble.mean(0), len(ensemble)
        ensemble = mean + self.inflation * (ensemble - mean)
        gain = Gain(ensemble, operator, errors, self.locality)
        noise = generator.randn((members, len(y))).to(ensemble)
        noise = (noise - noise.mean(0)) * (members / (members - 1)) ** 0.5
        return ensemble + gain.increment(y + noise * errors - operator(ensemble))
