"""Reading any gridded data set as gapzoo's variables: CF attributes, or a mapping, name them.

Axes are found by ``standard_name``, ``units`` or ``axis``, else by their usual names. A variable
is found, in this order, by the mapping given, by its WeatherBench 2 name, by its CF standard name
together with where it lies (on levels, at 2 m or 10 m, elsewhere), and by ECMWF's short name. What
is read is (time, level, latitude, longitude), float32, SI units, south to north, from the first
longitude at or east of 0 degrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from gapzoo.core import VARIABLES, GapzooError, Grid, Variable, nearest
from gapzoo.data.field import Field
from gapzoo.data.units import Conversion, conversion

NAMES = {
    "time": ("time", "valid_time", "date"),
    "latitude": ("latitude", "lat", "y", "nav_lat", "rlat"),
    "longitude": ("longitude", "lon", "x", "nav_lon", "rlon"),
    "level": ("level", "isobaricInhPa", "pressure_level", "plev", "lev", "pressure", "sigma"),
}
UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degreeN"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degreeE"),
}
VERTICAL = {
    "air_pressure": "pressure",
    "atmosphere_sigma_coordinate": "sigma",
    "": "",
}
HEIGHTS = ("height", "heightAboveGround")
SHORT = {"2t": "t2m", "10u": "u10", "10v": "v10", "2d": "d2m", "siconc": "ci", "10si": "ws10"}
"""ECMWF short names that differ from the table's labels."""


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Args:
        mapping: gapzoo's name to the data set's, where they cannot be found by themselves.
        units: gapzoo's name to the units it comes in, where the file names none or wrong ones.
        axes: ``time``, ``level``, ``latitude`` or ``longitude`` to the data set's name of it.
        select: dimension to the position taken of it, such as ``{number: 0}``.
        times: dates of the steps, where the file has none.
    """

    mapping: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    select: dict[str, int] = field(default_factory=dict)
    times: Sequence[str] | None = None

    def of(self, data: xr.Dataset, where: str) -> Dataset:
        """A data set read this way; raises GapzooError where it has no such dimension."""
        for dim in (*self.select, *self.axes.values()):
            if dim not in data.dims and dim not in data.coords:
                known = [str(d) for d in data.dims]
                raise GapzooError(f"{where} has no dimension '{dim}'; {nearest(dim, known)}")
        data = data.isel({k: v for k, v in self.select.items() if k in data.dims})
        if self.times is not None:
            name = self.axes.get("time", "time")
            if data.sizes.get(name, 1) != len(self.times):
                raise GapzooError(f"{where}: {len(self.times)} times for {data.sizes[name]} steps")
            stamps = pd.DatetimeIndex(list(self.times))
            data = data.assign_coords({name: stamps if name in data.dims else stamps[0]})
        return Dataset(data, where, self)


@dataclass(frozen=True)
class Dataset:
    """A data set and how its axes are called.

    Args:
        data: opened without reading it.
        where: path or URL, for errors.
        reading: how to read it.
    """

    data: xr.Dataset
    where: str
    reading: Reading = field(default_factory=Reading)

    @cached_property
    def axes(self) -> dict[str, str]:
        """Dimensions: time, latitude, longitude, level to their names here, where there are."""
        found = {role: self._axis(role) for role in NAMES}
        for role in ("latitude", "longitude"):
            name = found[role]
            if name is None:
                raise GapzooError(f"{self.where} has no {role}; name it by CF (units degrees)")
            if self.data[name].ndim != 1:
                raise GapzooError(
                    f"{self.where}: {role} '{name}' has {self.data[name].ndim} dimensions; put "
                    "the data on a latitude-longitude grid first"
                )
        time = found["time"]
        if time is not None and self.data[time].ndim > 1:
            dims = ", ".join(str(d) for d in self.data[time].dims)
            raise GapzooError(f"{self.where}: '{time}' runs along {dims}; take one of all but one")
        return {role: name for role, name in found.items() if name is not None}

    def _axis(self, role: str) -> str | None:
        """Name of the variable that is one axis."""
        if role in self.reading.axes:
            return self.reading.axes[role]
        candidates = [str(n) for n in self.data.coords]
        for test in (_by_standard_name, _by_units, _by_name):
            for name in candidates:
                if test(self.data[name], role):
                    return name
        return None

    @cached_property
    def grid(self) -> Grid:
        """Of what is read: south to north, ascending longitude."""
        latitude = np.sort(np.asarray(self._values("latitude"), float))
        longitude = np.asarray(self._values("longitude"), float)
        try:
            return Grid(tuple(latitude), tuple(self._turned(longitude)))
        except GapzooError as error:
            raise GapzooError(f"{self.where}: {error}") from None

    def _turned(self, longitude: np.ndarray) -> np.ndarray:
        turned = np.where(np.abs(longitude % 360 - 360) < 1e-4, 0.0, longitude % 360)
        return np.roll(turned, -int(turned.argmin()))

    def _values(self, role: str) -> np.ndarray:
        return np.atleast_1d(self.data[self.axes[role]].values)

    @cached_property
    def level_kind(self) -> str:
        """``pressure`` or ``sigma``; raises GapzooError for any other vertical coordinate."""
        level = self.data[self.axes["level"]]
        kind = VERTICAL.get(str(level.attrs.get("standard_name", "")))
        units = level.attrs.get("units")
        if kind == "":
            small = np.abs(np.asarray(level.values, float)).max() <= 1.0
            kind = "sigma" if small and units in (None, "1", "sigma_level") else "pressure"
        if kind is None:
            raise GapzooError(
                f"{self.where}: levels of {level.attrs['standard_name']}; put the data on pressure "
                "or sigma levels first"
            )
        return kind

    @cached_property
    def levels(self) -> np.ndarray:
        """(L,) as they stand in the file: hPa, or sigma; empty where there are none."""
        if "level" not in self.axes:
            return np.zeros(0)
        level = self.data[self.axes["level"]]
        values = np.atleast_1d(np.asarray(level.values, float))
        if self.level_kind == "sigma":
            return values
        return values * conversion("level", level.attrs.get("units", "hPa"), "hPa").scale

    def level_positions(self, wanted: Sequence[float]) -> list[int]:
        """Where levels stand; raises GapzooError naming the first that is not there."""
        found = []
        for level in wanted:
            near = np.flatnonzero(np.isclose(self.levels, level, rtol=1e-4))
            if not len(near):
                known = ", ".join(f"{x:g}" for x in np.sort(self.levels))
                raise GapzooError(f"{self.where} has no level {level:g}; it has {known or 'none'}")
            found.append(int(near[0]))
        return found

    def find(self, name: str) -> str:
        """What a variable is called here.

        Raises:
            GapzooError: where nothing, or more than one variable, would do.
        """
        mapped = self.reading.mapping.get(name)
        if mapped is not None:
            if mapped not in self.data:
                raise GapzooError(
                    f"{self.where} has no '{mapped}' for '{name}'; {nearest(mapped, self._all)}"
                )
            return mapped
        if name in self.data:
            return name
        found = self._found(VARIABLES[name]) if name in VARIABLES else []
        if len(found) == 1:
            return found[0]
        if found:
            raise GapzooError(
                f"{self.where}: '{name}' could be any of {', '.join(found)}; say which by "
                f"mapping: {{{name}: {found[0]}}}"
            )
        raise GapzooError(
            f"{self.where} has nothing that is '{name}'; {nearest(name, self._all)} or "
            f"map it: mapping: {{{name}: ...}}"
        )

    @property
    def time(self) -> xr.DataArray:
        """Times of the steps."""
        if "time" not in self.axes:
            raise GapzooError(
                f"{self.where} has no time; give its date by times: [2000-01-01], and the "
                "dimension by axes: {time: ...} where it has one"
            )
        return self.data[self.axes["time"]]

    def on_levels(self, name: str) -> bool:
        """Whether a variable here runs along the vertical axis."""
        return self._has_levels(self.data[self.find(name)])

    def _has_levels(self, array: xr.DataArray) -> bool:
        """Along the vertical axis, or at the one level that there is."""
        return "level" in self.axes and self.axes["level"] in array.coords

    def has(self, name: str) -> bool:
        """Whether a variable is found here."""
        try:
            self.find(name)
        except GapzooError:
            return False
        return True

    @property
    def _all(self) -> list[str]:
        return [str(n) for n in self.data.data_vars]

    def _found(self, variable: Variable) -> list[str]:
        """By standard name and place, else by short name."""
        named = [n for n in self._all if _standard(self.data[n]) in _standard_names(variable)]
        named = [n for n in named if self._lies_on(n) == (variable.place == "levels")]
        if len(named) > 1:
            named = [n for n in named if self._at(n, variable.place)]
        return named or [n for n in self._all if _short(self.data[n], n) == variable.short]

    def _lies_on(self, name: str) -> bool:
        """Along the vertical axis, where that is a dimension; at the one level there is, else."""
        if "level" not in self.axes:
            return False
        along = self._dimension("level")
        return along in self.data[name].dims if along in self.data.dims else True

    def _at(self, name: str, place: str) -> bool:
        """Whether the height that comes with a variable, if any, is that of its place."""
        coords = self.data[name].coords
        height = next((coords[n] for n in HEIGHTS if n in coords), None)
        if place in ("surface", "levels") or height is None or height.size != 1:
            return height is None or place != "surface"
        return bool(np.isclose(float(height), float(place.split()[0])))

    def _dimension(self, role: str) -> str:
        """The dimension that an axis runs along."""
        array = self.data[self.axes[role]]
        return str(array.dims[0]) if array.ndim else self.axes[role]

    def field(self, name: str, levels: Sequence[float] | None = None) -> Field:
        """A variable as it is to be read.

        Args:
            name: WeatherBench 2 name.
            levels: the levels wanted, in hPa or sigma; None for a variable without levels.
        """
        own = self.find(name)
        array = self.data[own]
        dims = {role: self._dimension(role) for role in self.axes}
        self._refuse_extra(own, array, dims, levels)
        wanted = VARIABLES[name].units if name in VARIABLES else None
        given = self.reading.units.get(name, array.attrs.get("units"))
        convert = conversion(name, given, wanted) if wanted else Conversion()
        positions = None if levels is None else self.level_positions(levels)
        return Field(array, dims, positions, self._order, convert)

    def _refuse_extra(
        self, own: str, array: xr.DataArray, dims: dict[str, str], levels: Sequence[float] | None
    ) -> None:
        known = [d for role, d in dims.items() if levels is not None or role != "level"]
        for dim in (str(d) for d in array.dims if d not in known and array.sizes[d] > 1):
            raise GapzooError(
                f"{self.where}: '{own}' has a dimension '{dim}' of {array.sizes[dim]}; take one "
                f"of it: select: {{{dim}: 0}}"
            )
        if levels is not None and not self._has_levels(array):
            raise GapzooError(f"{self.where}: '{own}' has no levels; ask for it without any")

    @cached_property
    def _order(self) -> tuple[bool, int]:
        """Whether latitude is turned round, and by how much longitude is rolled."""
        latitude, longitude = self._values("latitude"), self._values("longitude")
        turned = np.where(np.abs(longitude % 360 - 360) < 1e-4, 0.0, longitude % 360)
        return bool(latitude[0] > latitude[-1]), -int(turned.argmin())


def _standard(array: xr.DataArray) -> str:
    return str(array.attrs.get("standard_name", ""))


def _standard_names(variable: Variable) -> tuple[str, ...]:
    """The table's, and others that CF has for the same thing."""
    others = {
        "geopotential": ("geopotential_height",),
        "sea_surface_temperature": ("sea_surface_skin_temperature",),
        "mean_sea_level_pressure": ("air_pressure_at_sea_level",),
        "land_sea_mask": ("land_binary_mask",),
        "geopotential_at_surface": ("surface_altitude",),
    }  # fmt: skip
    return variable.standard_name, *others.get(variable.name, ())


def _short(array: xr.DataArray, name: str) -> str:
    short = str(array.attrs.get("GRIB_shortName", name))
    return SHORT.get(short, short)


def _by_standard_name(array: xr.DataArray, role: str) -> bool:
    names: Iterable[str] = {
        "time": ("time",),
        "level": [n for n in VERTICAL if n] + ["atmosphere_hybrid_sigma_pressure_coordinate"],
    }.get(role, (role,))
    return _standard(array) in names


def _by_units(array: xr.DataArray, role: str) -> bool:
    axis = {"time": "T", "level": "Z", "latitude": "Y", "longitude": "X"}[role]
    return array.attrs.get("units") in UNITS.get(role, ()) or (
        array.attrs.get("axis") == axis and array.ndim == 1
    )


def _by_name(array: xr.DataArray, role: str) -> bool:
    return str(array.name) in NAMES[role]
