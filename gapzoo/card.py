"""The model card: what a program knows of a checkpoint, as Markdown for people."""

from __future__ import annotations

from typing import Any


def card(body: dict[str, Any]) -> str:
    """The card of what checkpoint.json holds."""
    lines = [f"# {body['name']}", "", body.get("notes") or "", "", "| | |", "|---|---|"]
    lines += [f"| {k} | {v} |" for k, v in _facts(body)]
    lines += ["", "## Use", "", *_use(body), ""]
    return "\n".join([*lines, *_scores(body.get("scores", {}))])


def _facts(body: dict[str, Any]) -> list[tuple[str, Any]]:
    world, training = body["world"], body.get("training", {})
    details = world["details"]
    return [
        ("kind", body["kind"]),
        ("architecture", f"{body['model']}, {training.get('parameters', '?')} parameters"),
        ("world", f"{world['name']}, {len(world['latitude'])} x {len(world['longitude'])}"),
        ("channels", f"{len(world['channels'])} on {world['level_kind']} levels"),
        ("data hash", details.get("data_hash", "unknown")),
        ("training period", " to ".join(details.get("train", [])) or "unknown"),
        ("forcing", ", ".join(world["forcing_channels"]) or "none"),
        ("weights' SHA-256", body["weights_sha256"]),
        ("licence", body.get("license", "Apache-2.0")),
        ("parent", body.get("parent") or "none"),
        *((k, v) for k, v in training.items() if k != "parameters"),
    ]


def _use(body: dict[str, Any]) -> list[str]:
    attribute = "prior" if body["kind"] == "prior" else "forecaster"
    return ["```python", f'gapzoo.load("{body["name"]}").{attribute}', "```"]


def _scores(scores: dict[str, Any]) -> list[str]:
    if not scores:
        return []
    lines = ["## Scores", "", "| score | value |", "|---|---|"]
    return [*lines, *(f"| {k} | {v} |" for k, v in scores.items()), ""]
