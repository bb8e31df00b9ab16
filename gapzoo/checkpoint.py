"""Checkpoints: a folder that needs nothing beside it, loaded without running any code of it.

weights.safetensors   the network's weights and the world's arrays (climatology, ...)
extras-N.safetensors  other arrays: a prior's covariance, a forecaster's error variances
checkpoint.json       architecture, world, training, scores, parent, hash of the weights
recipe.yaml           the recipe as it was resolved
card.md               the same for people, written by the program
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.climatology import Climatology
from gapzoo.core.world import World
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion import SCHEDULES, PreconditionedDenoiser
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.forecasters import FORECASTERS, NETWORKS, Forecaster

FORMAT = "gapzoo-checkpoint-1"
SHARD_BYTES = 15_000_000
FOLDERS = (Path("checkpoints"), Path(__file__).parent.parent / "checkpoints")


@dataclass
class Checkpoint:
    """A trained network with all that is needed to use it.

    Args:
        name: ``architecture.tag``.
        kind: ``prior`` or ``forecaster``.
        network: the backbone, in evaluation mode.
        world: the data it was trained for.
        details: architecture, schedule, training, scores, parent; what checkpoint.json holds.
        extras: other arrays, such as ``error24``: a forecaster's error variances at 24 h.
    """

    name: str
    kind: str
    network: nn.Module
    world: World
    details: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def prior(self) -> Prior:
        """The prior of a denoiser's checkpoint: ``load(name).prior.given(...)``."""
        return Prior(self.denoiser)

    @cached_property
    def forecaster(self) -> Forecaster:
        """The forecaster of a forecasting network's checkpoint."""
        if self.kind != "forecaster":
            raise GapzooError(f"checkpoint '{self.name}' is a {self.kind}, not a forecaster")
        low = torch.bfloat16 if self.details.get("precision") == "bf16" else None
        arguments = {"world": self.world, "network": self.network, "autocast": low}
        return FORECASTERS.build("convcast", **arguments)

    def error(
        self, hours: int, basis: ZonalCovariance | None = None
    ) -> SpectralCovariance | ZonalCovariance:
        """Covariance of a forecaster's errors at a lead, in normalised states.

        Args:
            hours: lead.
            basis: a prior's covariance; where the errors were estimated in its basis too, that
                estimate is given, which knows their vertical and meridional structure.

        Raises:
            GapzooError: where it was not estimated for that lead.
        """
        zonal = self.extras.get(f"error{hours}.zonal")
        if basis is not None and zonal is not None and len(zonal) == len(basis.eigenvalues):
            return RegressedErrors(basis, zonal, self.extras[f"error{hours}.gain"])
        if f"error{hours}" not in self.extras:
            known = sorted(k for k in self.extras if k.startswith("error"))
            raise GapzooError(f"'{self.name}' has no error covariance at {hours} h, only {known}")
        return SpectralCovariance(self.extras[f"error{hours}"])

    @cached_property
    def denoiser(self) -> PreconditionedDenoiser:
        """The prior's denoiser; raises GapzooError for a forecaster."""
        if self.kind != "prior":
            raise GapzooError(f"checkpoint '{self.name}' is a {self.kind}, not a prior")
        schedule = SCHEDULES.build(self.details["schedule"], **self.details["schedule_options"])
        low = torch.bfloat16 if self.details.get("precision") == "bf16" else None
        return PreconditionedDenoiser(
            self.network,
            schedule,
            autocast=low,
            climatology=self.covariance,
            cond_channels=self.world.cond_channels,
            shaped=bool(self.details.get("shaped", False)),
        ).eval()

    @cached_property
    def covariance(self) -> ZonalCovariance | None:
        """The climatological covariance of a prior that was trained around one."""
        if "covariance.eigenvalues" not in self.extras:
            return None
        return ZonalCovariance.from_tensors(self.extras, self.world.shape)

    @property
    def hash(self) -> str:
        """SHA-256 of the weights' file."""
        return str(self.details.get("weights_sha256", ""))


def save(
    folder: str | Path, checkpoint: Checkpoint, recipe: str, *, low_precision: bool = True
) -> Path:
    """Write a checkpoint's folder.

    Args:
        folder: made where missing; files in it are replaced.
        checkpoint: what to write.
        recipe: text of the resolved recipe.
        low_precision: keep the network's weights as bfloat16 (half the size).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = torch.bfloat16 if low_precision else torch.float32
    state = checkpoint.network.state_dict()
    tensors = {f"network.{k}": v.detach().cpu().to(kind).contiguous() for k, v in state.items()}
    tensors |= {f"world.{k}": v.contiguous() for k, v in _world_arrays(checkpoint.world).items()}
    files = {"weights.safetensors": _save(folder / "weights.safetensors", tensors)}
    for number, shard in enumerate(_shards(checkpoint.extras), 1):
        name = f"extras-{number}.safetensors"
        files[name] = _save(folder / name, shard)
    details = {
        **checkpoint.details,
        "weights_sha256": files["weights.safetensors"],
        "files": files,
    }
    body = {
        "format": FORMAT,
        "name": checkpoint.name,
        "kind": checkpoint.kind,
        "world": _world_text(checkpoint.world),
        **details,
    }
    checkpoint.details = details
    _write(folder / "checkpoint.json", json.dumps(body, indent=1, default=str) + "\n")
    _write(folder / "recipe.yaml", recipe)
    _write(folder / "card.md", card(body))
    return folder


def load(name: str | Path) -> Checkpoint:
    """Load a checkpoint by name, from ``checkpoints/`` here or in the repository, or by folder.

    Raises:
        GapzooError: where it is missing, damaged, truncated, of another format, or not what its
            description says.
    """
    folder = find(name)
    body = _description(folder)
    files = body.get("files")
    if not isinstance(files, dict) or "weights.safetensors" not in files:
        raise GapzooError(f"{folder} does not list its files; it is damaged, fetch it again")
    for file, digest in files.items():
        path = folder / Path(file).name
        if not path.is_file() or sha256(path) != digest:
            raise GapzooError(
                f"{path} is missing, damaged or not the one described; fetch it again"
            )
    try:
        tensors = load_file(folder / "weights.safetensors")
        network = _network(body, _part(tensors, "network."))
        world = _world(body["world"], _part(tensors, "world."))
        extras: dict[str, Tensor] = {}
        for file in sorted(set(files) - {"weights.safetensors"}):
            extras |= load_file(folder / Path(file).name)
        return Checkpoint(body["name"], body["kind"], network, world, body, extras)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise GapzooError(f"checkpoint {folder} is not whole: {reason}") from None


def _save(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write a file, whole or not at all; its hash."""
    part = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)
    digest = sha256(part)
    part.replace(path)
    return digest


def _shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors in files of at most ``SHARD_BYTES``, in order."""
    shards: list[dict[str, Tensor]] = []
    size = SHARD_BYTES
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if size + nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += nbytes
    return shards


def find(name: str | Path) -> Path:
    """Folder of a checkpoint; raises GapzooError where there is none, naming those there are."""
    tried = [Path(name), *(folder / str(name) for folder in FOLDERS)]
    for folder in tried:
        if (folder / "checkpoint.json").is_file():
            return folder
    known = sorted({p.parent.name for f in FOLDERS for p in f.glob("*/checkpoint.json")})
    raise GapzooError(f"no checkpoint '{name}'; known: {', '.join(known) or 'none'}")


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "checkpoint.json"
    try:
        body = json.loads(path.read_text())
    except ValueError as error:
        raise GapzooError(f"{path} is damaged ({error}); fetch it again") from None
    form = body.get("format") if isinstance(body, dict) else None
    if form != FORMAT:
        raise GapzooError(f"{folder} is of format {form!r}, not {FORMAT}; is it a checkpoint?")
    if body.get("kind") not in ("prior", "forecaster"):
        raise GapzooError(f"{folder} is of kind {body.get('kind')!r}; prior or forecaster")
    return body


def _network(body: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    registry = DENOISERS if body["kind"] == "prior" else NETWORKS
    network = registry.build(body["model"], **body["arguments"])
    own = network.state_dict()
    network.load_state_dict({k: v.to(own[k].dtype) if k in own else v for k, v in state.items()})
    return network.eval().requires_grad_(False)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _world_arrays(world: World) -> dict[str, Tensor]:
    arrays = {
        "mean": world.climatology.mean_coefficients,
        "variance": world.climatology.variance_coefficients,
        "forcing": world.forcing_climatology,
        "static": world.static,
        "diff_std": world.diff_std,
        "forcing_std": world.forcing_std,
    }
    return {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in arrays.items()}


def _world_text(world: World) -> dict[str, Any]:
    return {
        "name": world.name,
        "latitude": world.grid.latitude,
        "longitude": world.grid.longitude,
        "channels": world.channels.labels,
        "units": [c.units for c in world.channels],
        "level_kind": world.channels.level_kind,
        "hours": world.hours,
        "forcing_channels": world.forcing_channels,
        "static_channels": world.static_channels,
        "details": world.details,
    }


def _world(text: dict[str, Any], arrays: dict[str, Tensor]) -> World:
    numbers = {k: v.numpy() for k, v in arrays.items()}
    sizes = (len(text["channels"]), len(text["latitude"]), len(text["longitude"]))
    if numbers["mean"].shape[1:] != sizes:
        found = tuple(numbers["mean"].shape[1:])
        raise GapzooError(f"a world of {sizes} is described, its arrays are of {found}")
    return World(
        name=text["name"],
        grid=Grid(tuple(text["latitude"]), tuple(text["longitude"])),
        channels=Channels(text["channels"], text["level_kind"]),
        hours=text["hours"],
        climatology=Climatology(numbers["mean"], numbers["variance"]),
        diff_std=numbers["diff_std"].astype(np.float64),
        forcing_channels=tuple(text["forcing_channels"]),
        forcing_climatology=numbers["forcing"],
        forcing_std=numbers["forcing_std"].astype(np.float64),
        static=numbers["static"],
        static_channels=tuple(text["static_channels"]),
        details=text["details"],
    )


def sha256(path: Path) -> str:
    """Hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def card(body: dict[str, Any]) -> str:
    """The model card as Markdown, from what checkpoint.json holds."""
    world, training = body["world"], body.get("training", {})
    rows = [
        ("kind", body["kind"]),
        ("architecture", f"{body['model']}, {training.get('parameters', '?')} parameters"),
        ("world", f"{world['name']}, {len(world['latitude'])} x {len(world['longitude'])}"),
        ("channels", f"{len(world['channels'])} on {world['level_kind']} levels"),
        ("data hash", world["details"].get("data_hash", "")),
        ("training period", " to ".join(world["details"].get("train", []))),
        ("forcing", ", ".join(world["forcing_channels"])),
        ("weights' SHA-256", body["weights_sha256"]),
        ("licence", body.get("license", "Apache-2.0")),
        ("parent", body.get("parent") or "none"),
        *training.items(),
    ]
    lines = [f"# {body['name']}", "", body.get("notes") or "", "", "| | |", "|---|---|"]
    lines += [f"| {k} | {v} |" for k, v in rows]
    return "\n".join([*lines, "", *_scores(body.get("scores", {}))])


def _scores(scores: dict[str, Any]) -> list[str]:
    if not scores:
        return []
    lines = ["## Scores", "", "| score | value |", "|---|---|"]
    return [*lines, *(f"| {k} | {v} |" for k, v in scores.items()), ""]
