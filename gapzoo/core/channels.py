"""Variable table (WeatherBench 2 and CF names, units); channels: a variable at a level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gapzoo.core.errors import GapzooError, nearest


@dataclass(frozen=True)
class Variable:
    """One row of the table: WeatherBench 2 name, CF standard name, SI units, short label, place.

    ``place`` is ``levels`` for a profile, ``2 m`` or ``10 m`` above the ground, or ``surface``.
    """

    name: str
    standard_name: str
    units: str
    short: str
    place: str = "surface"


_ROWS = (
    ("u_component_of_wind", "eastward_wind", "m s-1", "u", "levels"),
    ("v_component_of_wind", "northward_wind", "m s-1", "v", "levels"),
    ("temperature", "air_temperature", "K", "t", "levels"),
    ("specific_humidity", "specific_humidity", "kg kg-1", "q", "levels"),
    ("geopotential", "geopotential", "m2 s-2", "z", "levels"),
    ("vertical_velocity", "lagrangian_tendency_of_air_pressure", "Pa s-1", "w", "levels"),
    ("surface_pressure", "surface_air_pressure", "Pa", "sp"),
    ("mean_sea_level_pressure", "air_pressure_at_mean_sea_level", "Pa", "msl"),
    ("2m_temperature", "air_temperature", "K", "t2m", "2 m"),
    ("lowest_level_temperature", "air_temperature", "K", "tlow"),
    ("10m_u_component_of_wind", "eastward_wind", "m s-1", "u10", "10 m"),
    ("10m_v_component_of_wind", "northward_wind", "m s-1", "v10", "10 m"),
    ("10m_wind_speed", "wind_speed", "m s-1", "ws10", "10 m"),
    ("2m_dewpoint_temperature", "dew_point_temperature", "K", "d2m", "2 m"),
    ("relative_humidity", "relative_humidity", "1", "r", "levels"),
    ("wind_speed", "wind_speed", "m s-1", "ws", "levels"),
    (
        "specific_cloud_ice_water_content",
        "mass_fraction_of_cloud_ice_in_air",
        "kg kg-1",
        "ciwc",
        "levels",
    ),
    (
        "specific_cloud_liquid_water_content",
        "mass_fraction_of_cloud_liquid_water_in_air",
        "kg kg-1",
        "clwc",
        "levels",
    ),
    ("total_column_water_vapour", "atmosphere_mass_content_of_water_vapor", "kg m-2", "tcwv"),
    ("total_cloud_cover", "cloud_area_fraction", "1", "tcc"),
    ("total_precipitation_6hr", "lwe_thickness_of_precipitation_amount", "m", "tp6"),
    ("total_precipitation_12hr", "lwe_thickness_of_precipitation_amount", "m", "tp12"),
    ("total_precipitation_24hr", "lwe_thickness_of_precipitation_amount", "m", "tp24"),
    ("sea_surface_temperature", "sea_surface_temperature", "K", "sst"),
    ("sea_ice_cover", "sea_ice_area_fraction", "1", "ci"),
    ("toa_incident_solar_radiation", "toa_incoming_shortwave_flux", "J m-2", "tisr"),
    ("carbon_dioxide", "mole_fraction_of_carbon_dioxide_in_air", "1", "co2"),
    ("geopotential_at_surface", "surface_geopotential", "m2 s-2", "zs"),
    ("land_sea_mask", "land_area_fraction", "1", "lsm"),
)
VARIABLES: dict[str, Variable] = {row[0]: Variable(*row) for row in _ROWS}
"""Every variable that gapzoo knows by name; others are carried with the units they come with."""

LEVEL_UNITS = {"sigma": "1", "pressure": "hPa"}


@dataclass(frozen=True, order=True)
class Channel:
    """A variable at one level (``None`` for a single-level variable)."""

    variable: str
    level: float | None = None

    @property
    def label(self) -> str:
        """``temperature@0.835`` or ``surface_pressure``; what archives and errors call it."""
        return self.variable if self.level is None else f"{self.variable}@{self.level:g}"

    @property
    def units(self) -> str:
        """SI units of the variable; ``1`` where the table does not know it."""
        known = VARIABLES.get(self.variable)
        return known.units if known else "1"

    @property
    def short(self) -> str:
        """A label for plots: ``t0.835``, ``sp``."""
        known = VARIABLES.get(self.variable)
        name = known.short if known else self.variable
        return name if self.level is None else f"{name}{self.level:g}"

    @classmethod
    def parse(cls, label: str) -> Channel:
        """Read a label; raises GapzooError where the level is no number."""
        variable, _, level = label.partition("@")
        try:
            return cls(variable, float(level) if level else None)
        except ValueError:
            raise GapzooError(f"channel '{label}': '{level}' is no level number") from None


class Channels(Sequence[Channel]):
    """An ordered set of channels on one kind of level (``sigma`` or ``pressure``)."""

    def __init__(self, channels: Iterable[Channel | str], level_kind: str = "pressure") -> None:
        parsed = [c if isinstance(c, Channel) else Channel.parse(c) for c in channels]
        if level_kind not in LEVEL_UNITS:
            raise GapzooError(f"level kind '{level_kind}'; {nearest(level_kind, LEVEL_UNITS)}")
        if len(set(parsed)) != len(parsed):
            raise GapzooError("a channel is named twice; name each once")
        self._channels, self.level_kind = tuple(parsed), level_kind
        self._index = {c.label: i for i, c in enumerate(parsed)}

    def __getitem__(self, item):  # type: ignore[no-untyped-def,override]
        if isinstance(item, slice):
            return Channels(self._channels[item], self.level_kind)
        return self._channels[item]

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Channels):
            return False
        return self.level_kind == other.level_kind and self._channels == other._channels

    def __hash__(self) -> int:
        return hash((self._channels, self.level_kind))

    def __repr__(self) -> str:
        return f"Channels({self.labels}, level_kind='{self.level_kind}')"

    @property
    def labels(self) -> list[str]:
        """The label of every channel, in order."""
        return [c.label for c in self._channels]

    def index(self, channel: Channel | str, *_: int) -> int:  # type: ignore[override]
        """Position of a channel; raises GapzooError naming the nearest one."""
        label = channel if isinstance(channel, str) else channel.label
        if label not in self._index:
            raise GapzooError(f"no channel '{label}'; {nearest(label, self._index)}")
        return self._index[label]

    def of(self, variable: str) -> list[int]:
        """Positions of every level of a variable, in level order of the set."""
        found = [i for i, c in enumerate(self._channels) if c.variable == variable]
        if not found:
            known = {c.variable for c in self._channels}
            raise GapzooError(f"no variable '{variable}'; {nearest(variable, known)}")
        return found

    def positions(self, wanted: str | Iterable[str]) -> list[int]:
        """Positions of variables or labels, one name or several; GapzooError for unknown ones."""
        names = [wanted] if isinstance(wanted, str) else wanted
        return [self.index(channel) for channel in self.select(names)]

    def select(self, wanted: Iterable[str] | None) -> Channels:
        """The subset named by variables or labels, in this set's order; ``None`` is all of it."""
        if wanted is None:
            return self
        names = list(wanted)
        known = set(self._index) | {c.variable for c in self._channels}
        for name in names:
            if name not in known:
                raise GapzooError(f"no variable or channel '{name}'; {nearest(name, known)}")
        keep = [c for c in self._channels if c.label in names or c.variable in names]
        return Channels(keep, self.level_kind)
