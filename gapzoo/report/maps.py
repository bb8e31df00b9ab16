"""A field as a map, in a picture or in the terminal.

Coastlines are Natural Earth's at 1:110 million (naturalearthdata.com, in the public domain), to
a hundredth of a degree; beside them, where it is known, the grid's own land as a thin line. With
cartopy (the extra ``maps``) the map takes other projections.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from rich.style import Style
from rich.text import Text

from gapzoo.core import GapzooError, Grid, nearest
from gapzoo.core.pressure import GRAVITY

COAST = Path(__file__).parent / "assets" / "coastline.npy"
BREAK = 32767
"""Marks the end of a line in the file of coastlines."""
SHOWN = {
    "Pa": ("hPa", 0.01),
    "kg kg-1": ("g/kg", 1000.0),
    "m2 s-2": ("gpm", 1 / GRAVITY),
    "m": ("mm", 1000.0),
    "m s-1": ("m/s", 1.0),
    "J m-2": ("kJ/m2", 1e-3),
}
"""SI units to those that are shown, and the factor."""
PROJECTIONS = ("plain", "robinson", "mollweide", "north", "south")
RAMP = " .:-=+*#%@"
SIGNED = ("wind", "vorticity", "divergence", "velocity")
"""Variables with a name like these are drawn in colours that part at zero."""


def shown(values: np.ndarray, units: str) -> tuple[np.ndarray, str]:
    """Values and units as forecasters read them."""
    name, factor = SHOWN.get(units, (units, 1.0))
    return values * factor, name


@cache
def coastline(west: float) -> np.ndarray:
    """(P, 2) longitude and latitude in the 360 degrees from ``west``, NaN between lines."""
    raw = np.load(COAST).astype(float)
    raw[raw[:, 0] == BREAK] = np.nan
    longitude = (raw[:, 1] / 100 - west) % 360 + west
    lines = np.stack([longitude, raw[:, 0] / 100], 1)
    cut = np.flatnonzero(np.abs(np.diff(longitude)) > 180) + 1
    return np.insert(lines, cut, np.nan, 0)


def colours_of(label: str, difference: bool) -> tuple[str, bool]:
    """A colour map, and whether its middle is zero."""
    if difference or any(word in label for word in SIGNED):
        return "RdBu_r", True
    if "precipitation" in label or "humidity" in label:
        return "YlGnBu", False
    return "viridis", False


def limits_of(values: np.ndarray, centred: bool) -> tuple[float, float]:
    """Lowest and highest value, alike about zero where centred; never the same."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if centred:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def map_figure(
    grid: Grid,
    values: np.ndarray,
    *,
    title: str,
    units: str,
    label: str = "",
    difference: bool = False,
    land: np.ndarray | None = None,
    limits: tuple[float, float] | None = None,
    projection: str = "plain",
) -> Figure:
    """One field as a map.

    Args:
        grid: of the field.
        values: (H, W) in the units named.
        title: above the map.
        units: beside the colour bar.
        label: of the variable, for the choice of colours.
        difference: draw it in colours that part at zero.
        land: (H, W) share of land, drawn as a thin line; none where None.
        limits: of the colours; the field's own where None.
        projection: one of ``PROJECTIONS``; all but ``plain`` need cartopy.

    Raises:
        GapzooError: for another projection, or one that needs cartopy where it is not.
    """
    colours, centred = colours_of(label, difference)
    low, high = limits or limits_of(values, centred)
    size = (6.4, 5.6) if projection in ("north", "south") else (9, 4.8)
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    ax, transform = _axes(figure, projection)
    image = ax.pcolormesh(
        *_edges(grid), values, cmap=colours, vmin=low, vmax=high, rasterized=True, **transform
    )
    coast(ax, grid, land, **transform)
    ax.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02, extend="both" if limits else None)
    bar.set_label(units)
    return figure


def _edges(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(W + 1,) and (H + 1,) edges of the cells in degrees."""
    longitude, latitude = np.asarray(grid.longitude), np.asarray(grid.latitude)
    half = (longitude[1] - longitude[0]) / 2
    middle = (latitude[1:] + latitude[:-1]) / 2
    pole = 90.0 if latitude[-1] > latitude[0] else -90.0
    return (
        np.append(longitude - half, longitude[-1] + half),
        np.concatenate([[-pole], middle, [pole]]),
    )


def coast(ax: Any, grid: Grid, land: np.ndarray | None = None, **transform: Any) -> None:
    """Draw coastlines, and dotted the grid's own land (H, W) where there is some."""
    whole = coastline(float(_edges(grid)[0][0]))
    parts = np.split(whole, np.flatnonzero(np.isnan(whole[:, 0])))
    lines = [part[~np.isnan(part[:, 0])] for part in parts]
    ax.add_collection(LineCollection(lines, colors="0.1", linewidths=0.7, **transform))
    if land is not None and 0 < float((land >= 0.5).mean()) < 1:
        style = {"colors": "0.35", "linewidths": 0.4, "linestyles": "dotted"}
        ax.contour(grid.longitude, grid.latitude, land, [0.5], **style, **transform)


def _axes(figure: Figure, projection: str) -> tuple[Any, dict[str, Any]]:
    if projection == "plain":
        return _plain(figure.subplots()), {}
    if projection not in PROJECTIONS:
        raise GapzooError(f"projection '{projection}'; {nearest(projection, PROJECTIONS)}")
    try:
        from cartopy import crs
    except ImportError:
        raise GapzooError(
            f"projection '{projection}' needs cartopy; pip install 'gapzoo[maps]', or take 'plain'"
        ) from None
    known: dict[str, Callable[[], Any]] = {
        "robinson": lambda: crs.Robinson(central_longitude=180),
        "mollweide": lambda: crs.Mollweide(central_longitude=180),
        "north": crs.NorthPolarStereo,
        "south": crs.SouthPolarStereo,
    }
    ax: Any = figure.add_subplot(projection=known[projection]())
    if projection in ("north", "south"):
        ax.set_extent(
            [-180, 180, *((20, 90) if projection == "north" else (-90, -20))], crs.PlateCarree()
        )
    else:
        ax.set_global()
    ax.gridlines(linewidth=0.3, color="0.5", alpha=0.5)
    return ax, {"transform": crs.PlateCarree()}


def _plain(ax: Axes) -> Axes:
    ax.set(ylim=(-90, 90), xticks=range(0, 361, 60), yticks=range(-90, 91, 30), aspect="equal")
    ax.set_xticklabels([_east(x) for x in range(0, 361, 60)])
    ax.set_yticklabels([_north(y) for y in range(-90, 91, 30)])
    ax.tick_params(labelsize=8)
    ax.grid(linewidth=0.3, color="0.5", alpha=0.4)
    return ax


def _east(degrees: int) -> str:
    side = "" if degrees % 180 == 0 else ("E" if degrees < 180 else "W")
    return f"{degrees if degrees <= 180 else 360 - degrees}°{side}"


def _north(degrees: int) -> str:
    return f"{abs(degrees)}°{'' if degrees == 0 else ('N' if degrees > 0 else 'S')}"


def save(figure: Figure, path: Path) -> Path:
    """Write a picture; the file appears whole."""
    kind = path.suffix.lstrip(".") or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise GapzooError(f"{path}: no picture is of the kind '{kind}'; take .png, .svg or .pdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format=kind)
    part.replace(path)
    return path


def thumbnail(
    grid: Grid, values: np.ndarray, *, width: int = 72, label: str = "", colour: bool = True
) -> Text:
    """A field as text: two rows of coloured half blocks a line, or a ramp of characters.

    Args:
        grid: of the field.
        values: (H, W).
        width: in characters; the map is half as many pixels high, a fourth as many lines.
        label: of the variable, for the choice of colours.
        colour: without it, for terminals and files that have none, dark to bright characters.
    """
    colours, centred = colours_of(label, difference=False)
    low, high = limits_of(values, centred)
    pixels = Normalize(low, high)(_sampled(grid, values, width))
    if not colour:
        return Text("\n".join(_ramp(row) for row in np.asarray(pixels)[::2]))
    painted = colormaps[colours](pixels)[..., :3]
    painted[_coastal(grid, width)] *= 0.4
    text = Text()
    for top, bottom in zip(painted[::2], painted[1::2], strict=True):
        for above, below in zip(top, bottom, strict=True):
            text.append("▀", Style(color=_hex(above), bgcolor=_hex(below)))
        text.append("\n")
    text.rstrip()
    return text


def _sampled(grid: Grid, values: np.ndarray, width: int) -> np.ndarray:
    """(width / 2, width) nearest values, from north to south."""
    latitude, longitude = _pixels(grid, width)
    rows = np.abs(np.asarray(grid.latitude)[None] - latitude[:, None]).argmin(1)
    away = (np.asarray(grid.longitude)[None] - longitude[:, None] + 180) % 360 - 180
    return values[np.ix_(rows, np.abs(away).argmin(1))]


def _pixels(grid: Grid, width: int) -> tuple[np.ndarray, np.ndarray]:
    height = 2 * (width // 4)
    latitude = 90 - 180 / height * (np.arange(height) + 0.5)
    return latitude, float(_edges(grid)[0][0]) + 360 / width * (np.arange(width) + 0.5)


def _coastal(grid: Grid, width: int) -> np.ndarray:
    """(height, width) whether a coastline runs through a pixel."""
    height = 2 * (width // 4)
    lines = coastline(float(_edges(grid)[0][0]))
    lines = lines[~np.isnan(lines).any(1)]
    rows = np.clip(((90 - lines[:, 1]) / 180 * height).astype(int), 0, height - 1)
    columns = np.clip((lines[:, 0] - _edges(grid)[0][0]) / 360 * width, 0, width - 1).astype(int)
    found = np.zeros((height, width), bool)
    found[rows, columns] = True
    return found


def _ramp(row: np.ndarray) -> str:
    return "".join(RAMP[min(int(x * len(RAMP)), len(RAMP) - 1)] for x in row)


def _hex(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(c)):02x}" for c in rgb)
