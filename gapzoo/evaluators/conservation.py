"""Budgets of a column on sigma levels: moisture, dry mass, energy.

    moisture  m_q = p_s/g sum_k q_k dsigma_k                                     kg m-2
    dry mass  m_d = p_s/g - m_q                                                  kg m-2
    energy    e = p_s/g [Phi_s + sum_k (c_p T_k + (u_k^2 + v_k^2)/2 + L_v q_k) dsigma_k]  J m-2

(Trenberth 1991, eq. 5 and 15, in sigma coordinates.) The metrics are the area mean of each in the
forecast, averaged over members, less that of the truth: a model that conserves keeps dry mass at 0
and the others without drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError
from gapzoo.core.pressure import GRAVITY
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums, area_sum

HEAT_CAPACITY = 1004.64
"""Of dry air at constant pressure, J kg-1 K-1."""
LATENT_HEAT = 2.501e6
"""Of vaporisation, J kg-1."""

State = Mapping[str, Tensor]
"""Variable names to (...,K,H,W), ``surface_pressure`` to (...,H,W); SI units."""


def sigma_thickness(centres: Sequence[float]) -> np.ndarray:
    """(K,) layer thicknesses from mid-layer sigma, in the same order; they add up to 1.

    Raises:
        GapzooError: where the centres belong to no set of layers between 0 and 1.
    """
    ordered, edges = np.sort(np.asarray(centres, np.float64)), [0.0]
    for centre in ordered:
        edges.append(2 * centre - edges[-1])
    thickness = np.diff(edges)
    if not (np.all(thickness > 0) and abs(edges[-1] - 1) < 1e-3):
        raise GapzooError(
            f"sigma levels {list(centres)} are no mid-points of layers from 0 to 1; "
            "pass dsigma=... yourself"
        )
    return thickness[np.argsort(np.argsort(centres))]


def moisture(state: State, dsigma: Tensor) -> Tensor:
    """Column water vapour (...,H,W), kg m-2."""
    return _column(state["specific_humidity"], dsigma) * state["surface_pressure"] / GRAVITY


def dry_mass(state: State, dsigma: Tensor) -> Tensor:
    """Mass of dry air (...,H,W), kg m-2."""
    return state["surface_pressure"] / GRAVITY - moisture(state, dsigma)


def energy(state: State, dsigma: Tensor) -> Tensor:
    """Moist total energy (...,H,W), J m-2; ``geopotential_at_surface`` (H,W) is 0 if absent."""
    u, v = state["u_component_of_wind"], state["v_component_of_wind"]
    specific = HEAT_CAPACITY * state["temperature"] + (u * u + v * v) / 2
    specific = specific + LATENT_HEAT * state["specific_humidity"]
    column = _column(specific, dsigma) + state.get("geopotential_at_surface", 0.0)
    return column * state["surface_pressure"] / GRAVITY


class Budget(Evaluator):
    """Area mean of a column budget in the forecast less that of the truth, (*E) without channels.

    The last kept axis of forecast and truth is the channel: (B,M,*E,C,H,W), physical units.

    Args:
        channels: the C channels, on sigma levels.
        dsigma: (K,) layer thicknesses in the channels' level order; None finds them.
    """

    statistics = ("difference",)
    needs_channels = True
    takes = ("channels",)
    needs: tuple[str, ...] = ("specific_humidity",)

    def __init__(
        self, area_weights: Any, *, channels: Channels, dsigma: Any = None, region: Any = None
    ) -> None:
        super().__init__(area_weights, region=region)
        if channels.level_kind != "sigma":
            raise GapzooError("budgets need channels on sigma levels; these are on pressure levels")
        self.places = {name: channels.of(name) for name in (*self.needs, "surface_pressure")}
        levels = [channels[i].level or 0.0 for i in self.places["specific_humidity"]]
        self.dsigma = torch.as_tensor(sigma_thickness(levels) if dsigma is None else dsigma)

    def budget(self, state: State, dsigma: Tensor) -> Tensor:
        """The budget of each column, (...,H,W)."""
        raise NotImplementedError

    def columns(self, states: Tensor) -> Tensor:
        """Budget of states (...,C,H,W), in float64: (...,H,W)."""
        found = {name: states[..., at, :, :].double() for name, at in self.places.items()}
        found["surface_pressure"] = found["surface_pressure"].squeeze(-3)
        return self.budget(found, self.dsigma.to(states.device))

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Area sums of the difference; a column counts if all its channels do."""
        members = forecast.unbind(1)
        mean = torch.stack([self.columns(x) for x in members]).mean(0)
        weight = weight.amin(-3) if weight.ndim > 2 else weight
        found = area_sum(mean - self.columns(truth), weight)
        return {"weight": weight.sum((-2, -1)).expand(found.shape), "difference": found}


@EVALUATORS.register("moisture")
class Moisture(Budget):
    """Column water vapour, forecast less truth, kg m-2."""

    def budget(self, state: State, dsigma: Tensor) -> Tensor:
        """Column water vapour."""
        return moisture(state, dsigma)


@EVALUATORS.register("dry_mass")
class DryMass(Budget):
    """Mass of dry air, forecast less truth, kg m-2."""

    def budget(self, state: State, dsigma: Tensor) -> Tensor:
        """Mass of dry air."""
        return dry_mass(state, dsigma)


@EVALUATORS.register("energy")
class Energy(Budget):
    """Moist total energy without the surface geopotential, forecast less truth, J m-2."""

    needs = ("specific_humidity", "temperature", "u_component_of_wind", "v_component_of_wind")

    def budget(self, state: State, dsigma: Tensor) -> Tensor:
        """Moist total energy."""
        return energy(state, dsigma)


def _column(field: Tensor, dsigma: Tensor) -> Tensor:
    return (field * dsigma[:, None, None].to(field.dtype)).sum(-3)
