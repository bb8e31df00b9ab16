"""The sea surface under a run: what was observed, or what may be assumed at its start.

    observed      the archive's own
    climatology   no anomaly
    persisted     the last known anomaly stays
    damped        it decays at each point, with the autocorrelation of the training years
    inverse       a linear inverse model of the training years carries it on

Monthly means that were interpolated to days know the month to come; ``known_days`` is the age of
the anomaly that is taken (17 days before the first of a month: the middle of the month before).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError, nearest
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.forcing import Variant, damped, decay_days, observed, persisted
from gapzoo.data.inverse import MONTH, SEA, LinearInverse, lagged, monthly_anomalies, sea_weights

KINDS = ("persisted", "climatology", "observed", "damped", "inverse")


@dataclass(frozen=True)
class SeaSurface:
    """Forcing for any start.

    Args:
        kind: one of ``KINDS``.
        world: whose climatology anomalies are from.
        archive: of the forcing; None for ``climatology``.
        known_days: age of the anomaly at the start.
        offset: K added everywhere, for a changed climate.
        eofs: of ``inverse``.
    """

    kind: str
    world: World
    archive: Archive | None = None
    known_days: float = 0.0
    offset: float = 0.0
    eofs: int = 15

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.kind != "climatology" and self.archive is None:
            raise GapzooError(f"sst '{self.kind}' needs an archive of forcing; see 'forcing'")
        if self.offset and SEA not in self.world.forcing_channels:
            raise GapzooError(f"{self.world.name} has no '{SEA}' to warm")

    def at(self, start: pd.Timestamp) -> Variant:
        """The forcing of a run from ``start``; raises GapzooError where it is not known then."""
        return self._warmed(self._plain(start))

    def _plain(self, start: pd.Timestamp) -> Variant:
        world, known = self.world, start - pd.Timedelta(days=self.known_days)
        if self.kind == "climatology":
            return persisted(world, np.zeros((len(world.forcing_channels), *world.grid.shape)))
        if self.kind == "observed":
            return self._observed
        anomaly = self._departure(known)
        if self.kind == "persisted":
            return persisted(world, anomaly)
        if self.kind == "damped":
            return damped(world, anomaly, known, self._decay)
        return self.inverse.variant(world, anomaly, known)

    def _departure(self, known: pd.Timestamp) -> np.ndarray:
        """(F, H, W) anomalies at a time; but for the sea's, from that day of the training years.

        The climatology's few harmonics miss where ice comes and goes. That is the same in every
        year, and no anomaly that persists. An archive without training years leaves it in.
        """
        anomaly = np.array(self._observed(pd.DatetimeIndex([known]))[0])
        rest = [n for n, name in enumerate(self.world.forcing_channels) if name != SEA]
        if rest and "train" in self.world.details:
            first, last = (pd.Timestamp(str(day)) for day in self.world.details["train"])
            years = range(first.year - known.year, last.year - known.year + 1)
            every = pd.DatetimeIndex([known + pd.DateOffset(years=n) for n in years])
            held, ends = self._observed.period or (first, last)
            inside = every[(every >= max(first, held)) & (every <= min(last, ends))]
            if len(inside):
                anomaly[rest] -= self._observed(inside)[:, rest].mean(0)
        return anomaly

    def _warmed(self, plain: Variant) -> Variant:
        if not self.offset:
            return plain
        at = self.world.forcing_channels.index(SEA)

        def slow(times: pd.DatetimeIndex) -> np.ndarray:
            anomaly = np.array(plain(times), np.float32)
            anomaly[:, at] += self.offset
            return anomaly

        return Variant(self.world, slow, plain.period, plain.name)

    @cached_property
    def _observed(self) -> Variant:
        assert self.archive is not None
        return observed(self.archive, self.world)

    @cached_property
    def _training(self) -> np.ndarray:
        """(N, H, W) monthly anomalies of the training years."""
        assert self.archive is not None
        if "train" not in self.world.details:
            raise GapzooError(
                f"sst '{self.kind}' is fitted to training years, and no network here names any; "
                "give a 'prior' or a trained 'forecaster', or take sst 'persisted'"
            )
        first, last = self.world.details["train"]
        return monthly_anomalies(self.archive, self.world, first, last)

    @cached_property
    def _decay(self) -> np.ndarray:
        """(F, H, W) e-folding days; channels other than the sea's persist."""
        days = np.full((len(self.world.forcing_channels), *self.world.grid.shape), np.inf)
        at = self.world.forcing_channels.index(SEA)
        days[at] = decay_days(lagged(self._training), MONTH)
        return days

    @cached_property
    def inverse(self) -> LinearInverse:
        """The linear inverse model of the training years."""
        return LinearInverse.fit(self._training, sea_weights(self.world), self.eofs)


def check_kind(kind: str, known: tuple[str, ...] = KINDS) -> None:
    """Refuse what is no assumption about the sea."""
    if kind not in known:
        raise GapzooError(f"sst '{kind}'; {nearest(kind, known)}")
