"""The denoisers as Lightning modules, for a plain ``lightning.Trainer``:

module = UNetDenoiser(channels=33, cond_channels=7, size="small")
lightning.Trainer(max_steps=1000).fit(module, data)
"""

from __future__ import annotations

from typing import Any

from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.training.module import DiffusionModule, new_backbone


class ZooDenoiser(DiffusionModule):
    """A registered backbone, trained as a denoiser.

    Args:
        name: the backbone's registered name.
        channels: C, channels of the state.
        cond_channels: K, channels of the condition.
        climatology: covariance of the data; the backbone then has C more condition channels.
        architecture: arguments that the named backbone takes instead of its own.
        options: see :class:`DiffusionModule`.
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int,
        cond_channels: int = 0,
        climatology: ZonalCovariance | None = None,
        architecture: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        inputs = cond_channels + (channels if climatology is not None else 0)
        arguments = {"channels": channels, "cond_channels": inputs} | (architecture or {})
        seed = options.get("seed", 0)
        backbone = new_backbone(seed, DENOISERS.build, name=name, **arguments)
        super().__init__(backbone, climatology=climatology, cond_channels=cond_channels, **options)
        self.name, self.arguments = name, arguments


class UNetDenoiser(ZooDenoiser):
    """``unet_small``, ``unet_base`` or ``unet_large``."""

    def __init__(self, *, size: str = "small", **arguments: Any) -> None:
        super().__init__(f"unet_{size}", **arguments)


class TransformerDenoiser(ZooDenoiser):
    """``transformer_small``, ``transformer_base`` or ``transformer_large``."""

    def __init__(self, *, size: str = "small", **arguments: Any) -> None:
        super().__init__(f"transformer_{size}", **arguments)


class MixtureDenoiser(ZooDenoiser):
    """``mixture_small``, ``mixture_base`` or ``mixture_large``."""

    def __init__(self, *, size: str = "small", **arguments: Any) -> None:
        super().__init__(f"mixture_{size}", **arguments)
