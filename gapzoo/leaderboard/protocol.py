"""Protocols: what is fixed when methods are compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from yaml import YAMLError

from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.module import World
from gapzoo.recipe import typed

SEASONS = ("11-01", "05-01")


@dataclass
class Cycling:
    """What a cycle of analyses has besides.

    Args:
        spin_up_days: that are not scored; the first half where negative.
        sondes: radiosonde-like stations of one more network; none where 0.
        withheld: share of the columns that are observed but never shown, to be scored against.
        parameters: changed physics of everybody's SPEEDY, so that no forecaster is perfect.
    """

    spin_up_days: int = -1
    sondes: int = 0
    withheld: float = 0.0
    parameters: dict[str, float] = field(default_factory=dict)


@dataclass
class Protocol:
    """One comparison.

    Args:
        name: of the protocol.
        track: registered name: ``analysis`` or ``weather``.
        world: that the archive must be of.
        variables: variables that are scored.
        period: first and last day of the initial times.
        cases: initial times, evenly spread over the period.
        members: of every ensemble.
        densities: shares of the columns that are observed (analysis).
        networks: different station networks, in turn over the cases.
        initial: weather starts from the ``truth`` or from the ``analysis`` at the first density.
        analyses: checkpoint of the prior that makes those analyses.
        lead_days: length of a forecast in days.
        hours: step of a forecast.
        starts: days of the year, month-day, that seasons begin on (seasonal).
        estimator: of the CRPS.
        seed: of networks, observation errors and members.
        cycling: of track ``cycle``.
        description: for readers.
    """

    name: str
    track: str
    world: str = "speedy-t21"
    variables: list[str] = field(default_factory=list)
    period: list[str] = field(default_factory=lambda: ["2006-01-01", "2013-12-31"])
    cases: int = 16
    members: int = 16
    densities: list[float] = field(default_factory=lambda: [0.01, 0.05, 0.1, 0.25])
    networks: int = 4
    initial: str = "truth"
    analyses: str = ""
    lead_days: int = 10
    hours: int = 24
    starts: list[str] = field(default_factory=lambda: list(SEASONS))
    estimator: str = "fair"
    seed: int = 1
    cycling: Cycling = field(default_factory=Cycling)
    description: str = ""

    def __post_init__(self) -> None:
        if not all(0 < d <= 1 for d in self.densities):
            raise GapzooError(f"protocol '{self.name}': densities must lie in (0, 1]")
        if self.members < 2 or self.cases < 1:
            raise GapzooError(f"protocol '{self.name}': needs 2 members and a case at least")
        if self.initial not in ("truth", "analysis"):
            raise GapzooError(f"protocol '{self.name}': initial is 'truth' or 'analysis'")

    @property
    def hash(self) -> str:
        """12 hex digits over every setting but the description, and default cycling and starts."""
        settings = dataclasses.asdict(self)
        settings.pop("description")
        if self.cycling == Cycling():
            settings.pop("cycling")
        if self.starts == list(SEASONS):
            settings.pop("starts")
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def positions(self, archive: Archive, world: World, ahead_hours: int = 0) -> np.ndarray:
        """Archive steps of the initial times, with ``ahead_hours`` of truth after each."""
        if world.name != self.world:
            raise GapzooError(
                f"protocol '{self.name}' is for {self.world}, the archive is {world.name}"
            )
        if self.hours % world.hours:
            raise GapzooError(
                f"protocol '{self.name}' has steps of {self.hours} h, {archive.path} of "
                f"{world.hours} h; build the archive with steps that divide the protocol's"
            )
        archive.require_single()
        every = archive.indices(self.period[0], self.period[1])
        ahead = ahead_hours // world.hours
        every = every[every + ahead < len(archive.times)]
        every = every[archive.runs[every] == archive.runs[every + ahead]]
        if len(every) < self.cases:
            raise GapzooError(f"{archive.path} has too few steps in {self.period} for the protocol")
        return every[np.linspace(0, len(every) - 1, self.cases).astype(int)]


def load(path: str | Path) -> Protocol:
    """Read a protocol; raises GapzooError for a missing file, an unknown key or a wrong type."""
    path = Path(path)
    if not path.exists():
        path = Path(__file__).parents[2] / "evaluation" / "protocols" / f"{path.stem}.yaml"
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise GapzooError(f"protocol {path} cannot be read: {reason}") from None
    if not isinstance(values, dict):
        raise GapzooError(f"protocol {path} must be 'key: value' lines")
    return typed(Protocol, values, str(path))  # type: ignore[arg-type]
