"""Units of files to SI units, by a table: value_SI = scale * value + offset.

A unit is a product of powers, in any of the usual spellings (``m s**-1``, ``m s-1``, ``m/s``,
``kg m^-2``); a name in ``BASES`` stands for powers of (m, kg, s, K, mol) times a scale. Three
things that dimensions alone don't settle are told apart by the variable: geopotential height (m)
is taken times 9.80665 m s-2; water per area (kg m-2) over 1000 kg m-3 is a depth; a rate (of
water or energy) times the hours in the variable's name is what gathered in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gapzoo.core import GapzooError
from gapzoo.core.pressure import GRAVITY

Powers = tuple[int, ...]
WATER = 1000.0
"""Density of water, kg m-3."""

BASES: dict[str, tuple[float, Powers]] = {
    "1": (1.0, (0, 0, 0, 0, 0)),
    "%": (0.01, (0, 0, 0, 0, 0)),
    "ppm": (1e-6, (0, 0, 0, 0, 0)),
    "m": (1.0, (1, 0, 0, 0, 0)),
    "km": (1e3, (1, 0, 0, 0, 0)),
    "cm": (1e-2, (1, 0, 0, 0, 0)),
    "mm": (1e-3, (1, 0, 0, 0, 0)),
    "kg": (1.0, (0, 1, 0, 0, 0)),
    "g": (1e-3, (0, 1, 0, 0, 0)),
    "mg": (1e-6, (0, 1, 0, 0, 0)),
    "s": (1.0, (0, 0, 1, 0, 0)),
    "min": (60.0, (0, 0, 1, 0, 0)),
    "h": (3600.0, (0, 0, 1, 0, 0)),
    "day": (86400.0, (0, 0, 1, 0, 0)),
    "K": (1.0, (0, 0, 0, 1, 0)),
    "mol": (1.0, (0, 0, 0, 0, 1)),
    "Pa": (1.0, (-1, 1, -2, 0, 0)),
    "hPa": (100.0, (-1, 1, -2, 0, 0)),
    "kPa": (1000.0, (-1, 1, -2, 0, 0)),
    "J": (1.0, (2, 1, -2, 0, 0)),
    "W": (1.0, (2, 1, -3, 0, 0)),
    "knot": (1852 / 3600, (1, 0, -1, 0, 0)),
}
SPELLINGS = {
    "": "1", "(0 - 1)": "1", "0-1": "1", "dimensionless": "1", "fraction": "1", "~": "1",
    "percent": "%", "kelvin": "K", "degK": "K", "deg_K": "K", "mb": "hPa", "mbar": "hPa",
    "millibar": "hPa", "millibars": "hPa", "pascal": "Pa", "gpm": "m", "metre": "m", "meter": "m",
    "metres": "m", "meters": "m", "sec": "s", "second": "s", "seconds": "s", "hr": "h",
    "hour": "h", "hours": "h", "d": "day", "days": "day", "kt": "knot", "knots": "knot",
}  # fmt: skip
CELSIUS = {"degC", "deg_C", "C", "celsius", "Celsius", "degree_Celsius", "degrees_C", "°C"}
FAHRENHEIT = {"degF", "deg_F", "F", "fahrenheit", "Fahrenheit", "°F"}
_FACTOR = re.compile(r"(/?)\s*([A-Za-z_%]+|1)(?:\^|\*\*)?([-+]?\d+)?[\s.*]*")


@dataclass(frozen=True)
class Conversion:
    """``scale * value + offset`` is in SI units."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether a value differs after it."""
        return (self.scale, self.offset) != (1.0, 0.0)


def conversion(variable: str, given: str | None, wanted: str) -> Conversion:
    """How values of a variable become those in the units that gapzoo keeps.

    Args:
        variable: WeatherBench 2 name; see the module for those that are special.
        given: units that the file names.
        wanted: units of the variable table.

    Raises:
        GapzooError: where the file names no units, ones that are not in the table, or ones of
            another dimension.
    """
    if given is None:
        raise GapzooError(
            f"'{variable}' comes without units; name them by units: {{{variable}: K}}"
        )
    text = given.strip()
    if wanted == "K" and text in CELSIUS:
        return Conversion(offset=273.15)
    if wanted == "K" and text in FAHRENHEIT:
        return Conversion(5 / 9, 273.15 - 32 * 5 / 9)
    scale, powers = parse(text, variable)
    target, kind = parse(wanted, variable)
    for factor, own in _ways(variable):
        if tuple(a + b for a, b in zip(powers, own, strict=True)) == kind:
            return Conversion(scale * factor / target)
    raise GapzooError(f"'{variable}' comes in '{given}', which is no unit like '{wanted}'")


def hours_of(variable: str) -> int | None:
    """Hours in the name of an accumulated variable: 6 of ``total_precipitation_6hr``."""
    found = re.search(r"_(\d+)hr$", variable)
    return int(found[1]) if found else None


def _ways(variable: str) -> list[tuple[float, Powers]]:
    """Factors that a variable may be multiplied with to get what is kept, and their powers."""
    ways: list[tuple[float, Powers]] = [(1.0, (0, 0, 0, 0, 0))]
    if variable.startswith("geopotential"):
        ways.append((GRAVITY, (1, 0, -2, 0, 0)))
    if "precipitation" in variable:
        ways.append((1 / WATER, (3, -1, 0, 0, 0)))
    hours = 1 if variable == "toa_incident_solar_radiation" else hours_of(variable)
    if hours:
        rate = [(f * hours * 3600.0, (*p[:2], p[2] + 1, *p[3:])) for f, p in ways]
        ways += rate
    return ways


def parse(text: str, variable: str) -> tuple[float, Powers]:
    """Scale and powers of (m, kg, s, K, mol) of a unit; ``variable`` is named in errors."""
    text = SPELLINGS.get(text, text)
    scale, at = 1.0, 0
    powers: Powers = (0,) * 5
    while at < len(text):
        found = _FACTOR.match(text, at)
        name = SPELLINGS.get(found[2], found[2]) if found else ""
        if found is None or name not in BASES:
            raise GapzooError(
                f"'{variable}' comes in '{text}', which is not in the table of units; "
                f"give its units by units: {{{variable}: ...}}, made of {', '.join(BASES)}"
            )
        power = int(found[3] or 1) * (-1 if found[1] else 1)
        factor, own = BASES[name]
        scale *= factor**power
        powers = tuple(a + power * b for a, b in zip(powers, own, strict=True))
        at = found.end()
    return scale, powers
