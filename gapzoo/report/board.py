"""The leaderboard as one self-contained HTML page: made from rows, readable offline.

Rows bring what sections need (``gapzoo.leaderboard.rows`` has the format) and a section is drawn
where there is something for it, so that a new track changes nothing here. The page's script and
style lie in ``assets``; numbers are put beside them as JSON, in the units that forecasters read.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
from pathlib import Path
from typing import Any

from gapzoo.core import VARIABLES, GapzooError
from gapzoo.core.pressure import GRAVITY
from gapzoo.leaderboard import intervals, metrics
from gapzoo.leaderboard.metrics import FIELD, Metric
from gapzoo.leaderboard.metrics import is_score as _is
from gapzoo.leaderboard.rows import FOLDER, protocols, rows
from gapzoo.leaderboard.tables import Ranking, heads, is_number, row_name, setting_name

ASSETS = Path(__file__).parent / "assets"
UNITS = {
    "m2 s-2": ("m", 1 / GRAVITY),
    "Pa": ("hPa", 0.01),
    "kg kg-1": ("g/kg", 1000.0),
    "m s-1": ("m/s", 1.0),
    "1": ("", 1.0),
}
"""SI units to what forecasters read, and the factor; geopotential becomes height."""
REFERENCES = ("optimal_interpolation", "letkf", "climatology", "persistence", "speedy")
"""Entries that a scorecard compares with unless told otherwise, first found first."""
HIDDEN = {"scores", "grid", "settings", "fields", "series", "initial_times", "format", "metrics"}
KINDS = {
    "rmse": ("error (RMSE)", "error"),
    "spread": ("spread", "error"),
    "bias": ("bias", "bias"),
    "mean": ("mean", "mean"),
    "acc": ("ACC", "correlation"),
    "correlation": ("correlation", "correlation"),
    "rpss": ("RPSS", "correlation"),
    "variance_ratio": ("variance over the truth's", "ratio"),
}
"""Maps: what readers call a kind, and the colour scale that it shares with others."""
IN_UNITS = ("rmse", "spread", "bias", "mean")
"""Maps in the units of their field."""


def write(path: Path, folder: Path = FOLDER) -> Path:
    """Write the page of all rows of a folder; it appears whole.

    Raises:
        GapzooError: where there are no rows, or rows of a protocol are unlike.
    """
    names = protocols(folder)
    if not names:
        raise GapzooError(f"no rows in {folder}; run an entry first: gapzoo leaderboard run ...")
    found = [part(rows(name, folder)) for name in names]
    data = {"protocols": found}
    text = json.dumps(_rounded(data), separators=(",", ":")).replace("</", "<\\/")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(_page(text), encoding="utf-8")
    temporary.replace(path)
    return path


def part(every: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page needs of one protocol's rows."""
    names = metrics.names(every)
    known = {name: metrics.metric(name, every) for name in names}
    ranking = Ranking(every, names[0])
    ordered, settings = ranking.rows, list(ranking.settings)
    kept = [
        n for key in ("headline", "maps") for r in every for s in _all(r) for n in s.get(key, {})
    ]
    labels = list(dict.fromkeys(["mean", *kept]))
    numbers = [float(s) if is_number(s) else None for s in settings]
    largest = max((x for x in numbers if x is not None), default=0.0)
    by_density, by_lead = 0 < largest <= 1, largest > 1
    return {
        "title": every[0]["protocol"],
        "description": every[0].get("settings", {}).get("description", ""),
        "facts": _facts(ordered),
        "heads": heads(ranking),
        "axis": "lead" if by_lead else "density" if by_density else "setting",
        "x": [x / 24 if by_lead and x is not None else x for x in numbers],
        "first": settings.index("72") if "72" in settings else 0,
        "metrics": {name: dataclasses.asdict(metric) for name, metric in known.items()},
        "labels": [_label(name, every[0]) for name in labels],
        "rows": [_row(row, settings, known, labels, by_density) for row in ordered],
        "p": {name: p_values(ordered, settings, name, labels) for name in names},
        "tested": all(intervals.testable(row) for row in ordered),
        "times": len(ordered[0].get("initial_times", [])),
        "block": intervals.block(ordered[0]),
        "reference": _reference(ordered),
        "grid": next((row["grid"] for row in ordered if "grid" in row), None),
    }


def p_values(
    ordered: list[dict[str, Any]], settings: list[str], metric: str, labels: list[str]
) -> dict[str, dict[str, list[float | None]]]:
    """Of no difference, by field, and by a pair of rows ``i,j``: a list over settings."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for i, j in itertools.combinations(range(len(ordered)), 2):
        tested = intervals.all_contrasts(ordered[i], ordered[j], metric, labels)
        for name, values in tested.items():
            listed = [values[s].p if s in values else None for s in settings]
            found.setdefault(name, {})[f"{i},{j}"] = listed
    return found


def _row(
    row: dict[str, Any],
    settings: list[str],
    known: dict[str, Metric],
    labels: list[str],
    by_density: bool,
) -> dict[str, Any]:
    at = [row["scores"].get(s, {}) for s in settings]
    scores, ranges = {}, {}
    for name, metric in known.items():
        scale = {label: _factor(label) if metric.units == FIELD else 1.0 for label in labels}
        values = {label: _values(at, name, label, scale[label]) for label in labels}
        scores[name] = {label: v for label, v in values.items() if any(map(_is, v))}
        found = intervals.all_bounds(row, name, list(scores[name]))
        ranges[name] = {k: _pairs(v, settings, scale[k]) for k, v in found.items()}
    return {
        "title": row_name(row),
        "scores": scores,
        "bounds": ranges,
        "channels": {m: c for m in known if (c := _channels(at, f"{m}_by_channel"))},
        "diverged": ["diverged" in s for s in at],
        "ranks": [s.get("ranks") for s in at],
        "spectra": [_spectra(s) for s in at],
        "maps": {str(n): _maps(s["maps"]) for n, s in enumerate(at) if s.get("maps")},
        "fields": [{"scale": f["title"], "units": "", **f} for f in row.get("fields", [])],
        "series": [*row.get("series", []), *_waves(row, settings), *_cycles(row, settings)],
        "cost": _cost(row, len(settings) if by_density else 1),
        "spent": [row.get(f"{kind}_seconds") for kind in ("wall", "cpu", "scoring")],
        "device": row.get("device", ""),
        "card": _card(row),
    }


def _values(at: list[dict[str, Any]], metric: str, label: str, factor: float) -> list[float | None]:
    """A score over settings, in the page's units."""
    of = [s if label == "mean" else s.get("headline", {}).get(label, {}) for s in at]
    return [factor * s[metric] if _is(s.get(metric)) else None for s in of]


def _pairs(
    ranges: dict[str, intervals.Range], settings: list[str], factor: float
) -> list[list[float] | None]:
    """Intervals over settings, in the page's units."""
    pairs = [ranges.get(s) for s in settings]
    return [[factor * v for v in pair] if pair else None for pair in pairs]


def _maps(maps: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Maps by field, each with its title, the colour scale it shares, and the page's units."""
    return {label: [_map(label, *one) for one in kinds.items()] for label, kinds in maps.items()}


def _map(label: str, kind: str, field: dict[str, Any]) -> dict[str, Any]:
    title, scale = KINDS.get(kind, (kind.replace("_", " "), kind))
    units, factor = ("", 1.0)
    if kind in IN_UNITS and "units" not in field:
        units, factor = _units(label)
    ends = {end: factor * field[end] for end in ("low", "high")}
    return {"title": title, "units": units, "scale": scale, **field, **ends}


def _channels(at: list[dict[str, Any]], key: str) -> dict[str, list[Any]]:
    names = dict.fromkeys(n for s in at for n in s.get(key, {}))
    return {n: [s.get(key, {}).get(n) for s in at] for n in names}


def _spectra(scores: dict[str, Any]) -> dict[str, list[float]]:
    found = scores.get("spectrum_ratio", {})
    return found if isinstance(found, dict) else {"mean": found}


def _waves(row: dict[str, Any], settings: list[str]) -> list[dict[str, Any]]:
    """Spread over error by zonal wavenumber, all channels together, of the first and the last."""
    found = []
    for setting in dict.fromkeys((settings[0], settings[-1])):
        known = row["scores"].get(setting, {}).get("spread_skill_by_wavenumber")
        if known:
            name = f"spread over error by wavenumber, {setting_name(setting)}"
            axes = {"x_label": "zonal wavenumber", "y_label": "spread over error"}
            waves = list(range(len(known["mean"])))
            found.append({"title": name, **axes, "x": waves, "y": known["mean"]})
    return found


def _cycles(row: dict[str, Any], settings: list[str]) -> list[dict[str, Any]]:
    """Scores along the cycle, mean over starts."""
    found = []
    hours = row.get("settings", {}).get("hours", 6)
    for setting in settings:
        starts = row["scores"].get(setting, {}).get("crps_by_cycle")
        if starts:
            mean = [sum(v) / len(v) for v in zip(*starts, strict=False)]
            days = [(n + 1) * hours / 24 for n in range(len(mean))]
            name = f"CRPS along the cycle, {setting_name(setting)}"
            axes = {"x_label": "days since the start", "y_label": "CRPS over spread"}
            found.append({"title": name, **axes, "x": days, "y": mean})
    return found


def _cost(row: dict[str, Any], settings: int) -> float | None:
    """Seconds a member of a case, scoring taken away where it is known."""
    on_cpu = str(row.get("device", "CPU")).startswith("CPU")
    spent = row.get("cpu_seconds" if on_cpu else "wall_seconds")
    if spent is None:
        return None
    runs = row.get("cases", 1) * settings
    members = row.get("members", 1) if any("ranks" in s for s in _all(row)) else 1
    drawn = spent - row.get("scoring_seconds", 0.0)
    return max(drawn, 0.01) / (runs * (members or 1))


def _card(row: dict[str, Any]) -> list[list[str]]:
    known = {k: v for k, v in row.items() if k not in HIDDEN}
    times = row.get("initial_times", [])
    if times:
        known["initial times"] = f"{len(times)}, {times[0]} to {times[-1]}"
    if row.get("settings"):
        known["protocol settings"] = row["settings"]
    return [
        [k.replace("_", " "), v if isinstance(v, str) else json.dumps(v)] for k, v in known.items()
    ]


def _facts(every: list[dict[str, Any]]) -> str:
    first = every[0]
    settings = first.get("settings", {})
    period = settings.get("period")
    counts = [(int(first[k]), k) for k in ("cases", "members") if k in first]
    facts = [f"{n} {k if n != 1 else k[:-1]}" for n, k in counts]
    facts += [f"initial times from {period[0]} to {period[1]}"] if period else []
    facts += [f"world {settings['world']}"] if settings else []
    facts += [f"{first['estimator']} CRPS"] if "estimator" in first else []
    facts += [f"seed {first['seed']}"] if "seed" in first else []
    hashes = f"protocol {first['protocol_hash']}, truth {first['archive_hash']}"
    return f"{', '.join(facts)}; {hashes}. Rows of other settings are not shown beside these."


def _label(name: str, row: dict[str, Any]) -> dict[str, Any]:
    if name == "mean":
        first = next(iter(_all(row)), {})
        count = len(first.get("crps_by_channel", {}))
        over = f"mean over {count} channels, over their spread" if count else "over all"
        return {"id": "mean", "name": "all channels" if count else "all", "long": over, "units": ""}
    short = _short(name)
    return {"id": name, "name": short, "long": short, "units": _units(name)[0]}


def _short(name: str) -> str:
    """Z500 of geopotential@500; the words of what is no variable."""
    variable, _, level = name.partition("@")
    known = VARIABLES.get(variable)
    return f"{known.short.upper()}{level}" if known else name.replace("_", " ")


def _units(name: str) -> tuple[str, float]:
    """Units that forecasters read, and the factor from SI."""
    variable = name.partition("@")[0]
    known = VARIABLES.get(variable)
    return UNITS.get(known.units, (known.units, 1.0)) if known else ("", 1.0)


def _factor(name: str) -> float:
    return _units(name)[1]


def _reference(ordered: list[dict[str, Any]]) -> int:
    entries = [row["entry"] for row in ordered]
    return next((entries.index(name) for name in REFERENCES if name in entries), len(entries) - 1)


def _all(row: dict[str, Any]) -> list[dict[str, Any]]:
    return list(row["scores"].values())


def _rounded(value: Any) -> Any:
    """Numbers to five digits, what is not finite as null."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value


def _page(data: str) -> str:
    style, charts, board = (
        (ASSETS / name).read_text("utf-8") for name in ("board.css", "charts.js", "board.js")
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    )
    intro = html.escape(
        "Priors, forecasts and baselines under the same protocols: same truth, same initial times, "
        "same observations and members. Choose a protocol, a score and a field; every section "
        "follows."
    )
    foot = html.escape(
        "Made by 'gapzoo leaderboard page' from evaluation/leaderboard; works offline."
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>gapzoo leaderboard</title>'
        f"<style>{style}</style></head><body><header><h1>gapzoo leaderboard</h1><p>{intro}</p>"
        '<nav id="tabs" role="tablist" aria-label="protocols"></nav></header>'
        f'<main id="board"></main><footer>{foot}</footer>'
        f'<script type="application/json" id="data">{data}</script>'
        f"<script>{charts}</script><script>{board}</script></body></html>\n"
    )
