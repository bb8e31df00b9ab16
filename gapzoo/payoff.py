"""What fine-tuning is worth: samples until a validation loss, against training from scratch."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from gapzoo.core import GapzooError
from gapzoo.fit import read_run
from gapzoo.report.figures import curves

ALIKE = (
    *("archive", "variables", "train", "validate", "validation_samples", "batch_size", "kind"),
    *("preconditioning", "covariance", "covariance_states", "covariance_threshold"),
    *("covariance_rest", "covariance_parts", "normalisation", "schedule", "schedule_options"),
    *("noise_mean", "noise_std", "seed"),
)
"""What a validation loss depends on, beside the network: states, noise and the loss's units."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
Curve = list[tuple[int, float]]


def curve(run: Path) -> Curve:
    """(samples, validation loss) of a run, in order."""
    batch, path = read_run(run).batch_size, run / "metrics.csv"
    if not path.exists():
        raise GapzooError(f"{run} has no metrics.csv; train it first")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "val/loss"]
    if not rows:
        raise GapzooError(f"{run} was never validated; train it for longer than an epoch")
    return [(int(row["step"]) * batch, float(row["value"])) for row in rows]


def until(points: Curve, loss: float) -> int | None:
    """Samples until a loss is first reached, or None."""
    return next((samples for samples, value in points if value <= loss), None)


def comparable(first: Path, second: Path) -> None:
    """Raise GapzooError where the losses of two runs do not mean the same."""
    left, right = read_run(first), read_run(second)
    for key in ALIKE:
        if getattr(left, key) != getattr(right, key):
            raise GapzooError(
                f"'{key}' is {getattr(left, key)} in {first} but {getattr(right, key)} in "
                f"{second}; their losses do not compare"
            )


def table(tuned: Path, scratch: Path) -> str:
    """Markdown: losses that the run from scratch reached, and the samples that each run took.

    The last row is the best loss that training from scratch reached with its whole budget.

    Raises:
        GapzooError: where the runs do not compare, or have no validation.
    """
    fine, fresh = curve(tuned), curve(scratch)
    comparable(tuned, scratch)
    lines = ["| validation loss | samples, fine-tuned | from scratch | times fewer |"]
    lines += ["|---|---|---|---|"]
    for share in SHARES:
        seen = [point for point in fresh if point[0] <= share * fresh[-1][0]]
        best = min(value for _, value in seen or fresh[:1])
        lines.append(_row(best, until(fine, best), until(fresh, best)))
    return "\n".join(dict.fromkeys([*lines, "", _best(fine, "fine-tuned"), _best(fresh, "fresh")]))


def figure(tuned: Path, scratch: Path) -> Figure:
    """Validation losses by samples, the first of them at none; raises as ``table`` does."""
    comparable(tuned, scratch)
    lines = {tuned.name: curve(tuned), scratch.name: curve(scratch)}
    values = {name: tuple(zip(*points, strict=True)) for name, points in lines.items()}
    drawn = curves(values, title="", x="training samples", y="validation loss")  # type: ignore[arg-type]
    axes = drawn.axes[0]
    axes.set_xscale("symlog", linthresh=read_run(tuned).batch_size)
    axes.autoscale(axis="y")
    return drawn


def _row(loss: float, fine: int | None, fresh: int | None) -> str:
    if fine is None:
        return f"| {loss:.4f} | not reached | {fresh:,} | |"
    ratio = "at once" if not fine else f"{(fresh or 0) / fine:.1f}"
    return f"| {loss:.4f} | {fine:,} | {fresh:,} | {ratio} |"


def _best(points: Curve, which: str) -> str:
    samples, loss = min(points, key=lambda point: point[1])
    first = f", {points[0][1]:.4f} before the first step" if points[0][0] == 0 else ""
    return f"Best, {which}: {loss:.4f} after {samples:,} samples{first}.\n"
