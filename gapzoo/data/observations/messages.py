"""BUFR messages as a table: one row a level of a report, or one row a report without levels.

Elements are taken by name in the order of the message, so any template that uses them is read. In
reports from the ground all belongs to the report. In others ``timePeriod`` or ``pressure`` opens a
level, and what comes before the first level belongs to all. Quality marks, substituted values and
statistics, which follow the data, are left out. A balloon's drift is applied where it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError

GROUND = (0, 1)
"""Data categories (table A) whose reports have no levels: land and sea surface."""
OPENS_LEVEL = ("timePeriod", "pressure")
HEIGHTS = ("heightOfStation", "heightOfStationGroundAboveMeanSeaLevel")
NAMES = ("shipOrMobileLandStationIdentifier", "aircraftFlightNumber", "aircraftRegistrationNumber")
CLOCK = ("year", "month", "day", "hour", "minute", "second")
DRIFT = {"latitudeDisplacement": "latitude", "longitudeDisplacement": "longitude"}
PLACE = ("latitude", "longitude", "blockNumber", "stationNumber", "flightLevel")
SIGNIFICANCE = {"verticalSoundingSignificance": 64, "extendedVerticalSoundingSignificance": 131072}
"""Flag tables, and in each the bit of the surface level."""
ELEMENTS = (
    "airTemperature",
    "dewpointTemperature",
    "windDirection",
    "windSpeed",
    "nonCoordinateGeopotential",
    "nonCoordinateGeopotentialHeight",
    "specificHumidity",
    "nonCoordinatePressure",
    "pressureReducedToMeanSeaLevel",
    "airTemperatureAt2M",
    "dewpointTemperatureAt2M",
    "windDirectionAt10M",
    "windSpeedAt10M",
    "seaSurfaceTemperature",
    "oceanographicWaterTemperature",
)
NUMBERS = (*OPENS_LEVEL, *HEIGHTS, *CLOCK, *DRIFT, *PLACE, *SIGNIFICANCE, *ELEMENTS)
WANTED = frozenset((*NUMBERS, *NAMES))
MISSING_INTEGER, MISSING_NUMBER = 2147483647, 1e99
Keys = list[tuple[str, str]]


def decode(path: Path) -> pd.DataFrame:
    """Every message of a file.

    Returns:
        A table with ``category`` (BUFR's data category), ``time``, ``latitude``, ``longitude``,
        ``station``, ``height`` (m, of the station), ``surface`` (whether the level is marked as
        that) and all of ``NUMBERS``, in BUFR's units; NaN where missing.

    Raises:
        GapzooError: where eccodes is not installed or a message cannot be decoded.
    """
    rows: list[dict[str, Any]] = []
    for handle in _messages(path):
        for report, levels in _reports(handle):
            rows += [{**report, **_known(level)} for level in levels or [{}]]
    table = pd.DataFrame(rows, columns=["category", *NUMBERS, *NAMES])
    table[list(NUMBERS)] = table[list(NUMBERS)].astype(float)
    for drift, name in DRIFT.items():
        table[name] = (table[name] + table[drift].fillna(0.0)).round(6)  # -90.00000000000001 occurs
    table["time"] = _times(table)
    table["station"] = _stations(table)
    table["height"] = table[HEIGHTS[0]].fillna(table[HEIGHTS[1]])
    marks = [table[k].fillna(0).astype(int) & bit > 0 for k, bit in SIGNIFICANCE.items()]
    table["surface"] = marks[0] | marks[1]
    return table.dropna(subset=["time", "latitude", "longitude"]).reset_index(drop=True)


def _known(level: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in level.items() if value is not None}


def _messages(path: Path) -> Iterator[int]:
    """Handles of unpacked messages; each is released when the next is asked for."""
    try:
        import eccodes
    except (ImportError, RuntimeError) as error:
        raise GapzooError("reading BUFR needs eccodes: pip install 'gapzoo[bufr]'") from error
    number = 0
    with path.open("rb") as file:
        while True:
            number += 1
            try:
                handle = eccodes.codes_bufr_new_from_file(file)
                if handle is None:
                    return
                eccodes.codes_set(handle, "skipExtraKeyAttributes", 1)
                eccodes.codes_set(handle, "unpack", 1)
            except eccodes.CodesInternalError as error:
                raise GapzooError(f"BUFR message {number} cannot be decoded: {error}") from error
            yield handle
            eccodes.codes_release(handle)


def _reports(handle: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The elements of each subset that belong to all of it, and its levels."""
    import eccodes

    category, keys = int(eccodes.codes_get(handle, "dataCategory")), _keys(handle)
    pairs = _compressed if eccodes.codes_get(handle, "compressedData") else _plain
    for subset in pairs(handle, keys):
        report, levels = _levels(subset, category not in GROUND)
        yield {"category": category, **report}, levels


def _keys(handle: int) -> Keys:
    """Keys (``#2#pressure``) of wanted elements in order with their names; ``subsetNumber`` too."""
    import eccodes

    iterator, found = eccodes.codes_bufr_keys_iterator_new(handle), []
    while eccodes.codes_bufr_keys_iterator_next(iterator):
        key = eccodes.codes_bufr_keys_iterator_get_name(iterator)
        name = key.rsplit("#", 1)[-1]
        if key == "operator":
            break
        if key == "subsetNumber" or (key.startswith("#") and name in WANTED):
            found.append((key, name))
    eccodes.codes_bufr_keys_iterator_delete(iterator)
    return found


def _plain(handle: int, keys: Keys) -> Iterator[list[tuple[str, Any]]]:
    """Names and values of each subset; those of an element lie in one array in their order."""
    names = {name for _, name in keys if name != "subsetNumber"}
    found = {name: _values(handle, name) for name in names}
    part: list[tuple[str, Any]] = []
    for key, name in keys:
        if name != "subsetNumber":
            part.append((name, found[name][int(key.split("#")[1]) - 1]))
        elif part:
            yield part
            part = []
    yield part


def _compressed(handle: int, keys: Keys) -> Iterator[list[tuple[str, Any]]]:
    """The same of compressed messages: a key holds all subsets, or one value that they share."""
    import eccodes

    columns = [(name, _values(handle, key)) for key, name in keys if name != "subsetNumber"]
    for subset in range(int(eccodes.codes_get(handle, "numberOfSubsets"))):
        yield [(name, v[subset] if len(v) > 1 else v[0]) for name, v in columns]


def _values(handle: int, key: str) -> list[Any]:
    """Values of an element; None for missing ones."""
    import eccodes

    values = np.asarray(eccodes.codes_get_array(handle, key))
    if values.dtype.kind not in "if":
        return [str(value).strip() or None for value in values]
    missing = (values == MISSING_INTEGER) | (np.abs(values.astype(float)) >= MISSING_NUMBER)
    return [None if gone else v for v, gone in zip(values.tolist(), missing, strict=True)]


def _levels(
    pairs: Iterable[tuple[str, Any]], layered: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What belongs to the report and to each level; of a repeated element the first value stays."""
    report: dict[str, Any] = {}
    levels: list[dict[str, Any]] = []
    for name, value in pairs:
        if layered and name in OPENS_LEVEL and (not levels or name in levels[-1]):
            levels.append({})
        where = levels[-1] if levels else report
        if where.get(name) is None:
            where[name] = value
    return report, levels


def _times(table: pd.DataFrame) -> pd.Series:
    """Time of the report, and of a level with its own the seconds since."""
    parts = table[list(CLOCK)].copy()
    parts[["minute", "second"]] = parts[["minute", "second"]].fillna(0.0)
    layered = ~table["category"].isin(GROUND)
    since = table["timePeriod"].where(layered, 0.0).fillna(0.0)
    return pd.to_datetime(parts, errors="coerce") + pd.to_timedelta(since, unit="s")


def _stations(table: pd.DataFrame) -> pd.Series:
    """WMO's five digits, or the name of a ship or aircraft."""
    number = table["blockNumber"] * 1000 + table["stationNumber"]
    digits = number.map(lambda n: f"{int(n):05d}", na_action="ignore").astype(object)
    for name in NAMES:
        digits = digits.fillna(table[name].astype(object))
    return digits.fillna("").astype(str)
