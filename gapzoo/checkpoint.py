"""Checkpoints: a folder that needs nothing beside it, loaded without running any code of it.

weights.safetensors   the network's weights and the world's arrays (climatology, ...); what does
                      not fit in one file goes on in weights-2.safetensors, ...
extras-N.safetensors  other arrays: a prior's covariance, a forecaster's error variances
checkpoint.json       architecture, world, training, scores, parent, hashes of the files
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
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gapzoo.card import card
from gapzoo.core import Channels, GapzooError, Grid, nearest
from gapzoo.core.climatology import Climatology
from gapzoo.core.truncation import truncated
from gapzoo.core.world import World
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion import SCHEDULES, PreconditionedDenoiser
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.moments import SecondMoments
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.single import SingleWeights
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.forecasters import FORECASTERS, NETWORKS, Forecaster
from gapzoo.forecasters.abroad import serving
from gapzoo.forecasters.corrected import Corrected, corrections
from gapzoo.hub import HUB, fetch

FORMAT = "gapzoo-checkpoint-1"
SHARD_BYTES = 15_000_000
WEIGHTS = "weights.safetensors"
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
        found = self.extras.get("moments")
        return Prior(self.denoiser, None if found is None else SecondMoments(found))

    @cached_property
    def forecaster(self) -> Forecaster:
        """The forecaster of a forecasting network's checkpoint."""
        if self.kind != "forecaster":
            raise GapzooError(f"checkpoint '{self.name}' is a {self.kind}, not a forecaster")
        low = torch.bfloat16 if self.details.get("precision") == "bf16" else None
        arguments = {"world": self.world, "network": self.network, "autocast": low}
        name = getattr(self.network, "forecaster", "convcast")
        return FORECASTERS.build(str(name), **arguments)

    def forecaster_in(self, world: World, prior: Checkpoint | None = None) -> Forecaster:
        """The forecaster for states that another world of the same channels normalises.

        Args:
            world: whose states it takes and gives.
            prior: with it, errors that are known in its modes are taken off.
        """
        world.require(self.world, f"checkpoint '{self.name}'")
        own = self.forecaster
        if prior is not None and prior.covariance is not None:
            known = corrections(self.extras, prior.covariance, prior.world)
            own = Corrected(serving(own, prior.world), known) if known else own
        return serving(own, world)

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
            names = ("gain", "persistence", "recurrence")
            rest = {name: self.extras.get(f"error{hours}.{name}") for name in names}
            return RegressedErrors(basis, zonal, **rest)  # type: ignore[arg-type]
        if f"error{hours}" not in self.extras:
            known = sorted(k for k in self.extras if k.startswith("error"))
            raise GapzooError(
                f"'{self.name}' has no error covariance at {hours} h, only {known}; take one of "
                "these, or where its recipe has that lead, 'gapzoo calibrate' it"
            )
        return SpectralCovariance(self.extras[f"error{hours}"])

    def single(self, hours: int) -> SingleWeights | None:
        """Weights of the sampler ``single`` for a roll-out by this forecaster, where measured."""
        found, scale = (self.extras.get(f"error{hours}.single{end}") for end in ("", ".scale"))
        return None if found is None else SingleWeights.of(found, scale)

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
            support=truncated(self.world),
        ).eval()

    @cached_property
    def covariance(self) -> ZonalCovariance | None:
        """The climatological covariance of a prior that was trained around one."""
        if "covariance.eigenvalues" not in self.extras:
            return None
        return ZonalCovariance.from_tensors(self.extras, self.world.shape)

    def to(self, device: torch.device) -> None:
        """Have the network, and all that a prior's denoiser holds, compute on a device."""
        (self.denoiser if self.kind == "prior" else self.network).to(device)

    @property
    def rounded(self) -> bool:
        """Whether every weight is one of bfloat16, so that half the size loses nothing."""
        weights = self.network.state_dict().values()
        return all(torch.equal(w, w.to(torch.bfloat16).to(w.dtype)) for w in weights)

    @property
    def hash(self) -> str:
        """SHA-256 of the weights' file, or of the hashes of several."""
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
    files: dict[str, str] = {}
    for number, shard in enumerate(_shards(tensors), 1):
        name = f"weights-{number}.safetensors" if number > 1 else WEIGHTS
        files[name] = _save(folder / name, shard)
    weights = list(files.values())
    for number, shard in enumerate(_shards(checkpoint.extras), 1):
        name = f"extras-{number}.safetensors"
        files[name] = _save(folder / name, shard)
    details = {
        **checkpoint.details,
        "weights_sha256": _weights_hash(weights),
        "files": files,
    }
    own = {
        "format": FORMAT,
        "name": checkpoint.name,
        "kind": checkpoint.kind,
        "world": _world_text(checkpoint.world),
    }
    body = {**own, **details, **own}  # first, and over what was loaded
    checkpoint.details = details
    _write(folder / "checkpoint.json", json.dumps(body, indent=1, default=str) + "\n")
    _write(folder / "recipe.yaml", recipe)
    _write(folder / "card.md", card(body))
    for old in {p.name for p in folder.glob("*.safetensors")} - files.keys():
        (folder / old).unlink()
    return folder


def load(name: str | Path) -> Checkpoint:
    """Load a checkpoint.

    Args:
        name: of a folder in ``checkpoints/`` here or in the repository; any folder; or
            ``hf://OWNER/NAME[@REVISION]`` on the Hugging Face hub (extra ``hub``).

    Raises:
        GapzooError: where it is missing, damaged, truncated, of another format, or not what its
            description says.
    """
    folder = find(name)
    body = _description(folder)
    files = body.get("files")
    if not isinstance(files, dict) or WEIGHTS not in files:
        raise GapzooError(f"{folder} does not list its files; it is damaged, fetch it again")
    for file, digest in files.items():
        path = folder / Path(file).name
        if not path.is_file() or sha256(path) != digest:
            raise GapzooError(
                f"{path} is missing, damaged or not the one described; fetch it again"
            )
    digests = [digest for file, digest in files.items() if Path(file).name.startswith("weights")]
    if body.get("weights_sha256") != _weights_hash(digests):
        raise GapzooError(f"{folder}: the weights are not those described; fetch it again")
    try:
        tensors, extras = _read(folder, files, "weights"), _read(folder, files, "extras")
        network = _network(body, _part(tensors, "network."))
        world = _world(body["world"], _part(tensors, "world."))
        return Checkpoint(body["name"], body["kind"], network, world, body, extras)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise GapzooError(f"checkpoint {folder} is not whole: {reason}") from None


def _read(folder: Path, files: dict[str, str], kind: str) -> dict[str, Tensor]:
    """Tensors of all files of a kind."""
    names = sorted(Path(file).name for file in files)
    parts = [load_file(folder / name) for name in names if name.startswith(kind)]
    return {key: value for part in parts for key, value in part.items()}


def _save(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write a file, whole or not at all, that others may read; its hash."""
    part = path.with_suffix(".part")
    part.write_bytes(save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
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
    if str(name).startswith(HUB):
        return fetch(str(name))
    tried = [Path(name), *(folder / str(name) for folder in FOLDERS)]
    for folder in tried:
        if (folder / "checkpoint.json").is_file():
            return folder
    known = sorted({p.parent.name for f in FOLDERS for p in f.glob("*/checkpoint.json")})
    raise GapzooError(f"no checkpoint '{name}'; {nearest(str(name), known)}")


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_scores(folder: Path, scores: dict[str, str]) -> None:
    """Add scores to a checkpoint's description, and write its card anew; the hash stays."""
    body = _description(folder)
    body["scores"] = {**body.get("scores", {}), **scores}
    _write(folder / "checkpoint.json", json.dumps(body, indent=1, default=str) + "\n")
    _write(folder / "card.md", card(body))


def _weights_hash(digests: list[str]) -> str:
    """Hash of the weights: that of their one file, or of the hashes of several."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
