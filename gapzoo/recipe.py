"""Recipes: flat, typed YAML files that say how a model is trained.

A recipe may name a ``base:`` recipe beside it and is then what it changes of it; the command line
changes single keys with ``key=value``. Unknown keys and wrong types are refused by name, and so is
``key=`` alone. ``null`` is none: no start, no variables; it is refused where a key needs a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from gapzoo.core import GapzooError, nearest

CHOICES = {
    "kind": ("prior", "forecaster"),
    "preconditioning": ("climatology", "scalar"),
    "weights": ("parent", "new"),
    "covariance": ("fit", "parent"),
    "normalisation": ("archive", "parent"),
}
POSITIVE = (
    *("batch_size", "steps_per_epoch", "validation_samples", "max_steps", "max_minutes"),
    *("covariance_states", "covariance_threshold", "covariance_rest", "noise_std"),
    *("devices", "num_nodes", "log_every"),
)
"""Keys whose numbers must be above zero."""
ARCHITECTURE = (
    "kind",
    "model",
    "model_options",
    "precision",
    "preconditioning",
    "schedule",
    "schedule_options",
)
"""Keys that a fine-tuned checkpoint has from its parent."""
TRAINER = ("devices", "num_nodes", "strategy", "accelerator")
"""Keys that may also stand together, ``trainer: {devices: 2, strategy: ddp}``."""
EMPTY: tuple[Any, ...] = ("", [], {})
"""What none is, of texts, lists and mappings."""


@dataclass
class Recipe:
    """How one model is trained.

    Args:
        name: of the checkpoint, ``architecture.tag``.
        kind: ``prior`` (a denoiser of states) or ``forecaster`` (a network that steps them).
        model: registered name of the backbone.
        model_options: its arguments, where they differ from that name's own.
        archive: folder of the data.
        variables: variables or channels to learn; all of the archive where empty.
        train, validate: first and last day of each period.
        hours: leads that a forecaster learns.
        waves: of a forecaster that draws: zonal wavenumbers, from 0 on, whose coefficients have
            half of the loss (``gapzoo.training.crpscast``); 0 is none.
        modes: of a forecaster that draws: least variance, normalised, of the modes of ``basis``
            whose coefficients have half of what is then the loss; 0 is none.
        basis: checkpoint of a prior, in whose basis a forecaster's errors are estimated too.
        corrected: of a forecaster: leads, in hours, at which what start, forecast and the adiabatic
            tendency between them tell of its errors is fitted in the modes of ``basis`` once it is
            trained (``gapzoo.forecasters.corrected``).
        stages: equal parts that a corrected lead is made of.
        corrector_steps: of a small network that learns, in each stage, what the fit leaves; 0 is
            none.
        batch_size: samples a step, of all devices together.
        steps_per_epoch: steps between validations.
        validation_samples: samples of a validation.
        max_steps, max_minutes: the budget; one of them, or whichever ends first.
        optimizer, learning_rate, warmup, weight_decay, ema_decay: see ``Optimisation``.
        clip: largest norm of the gradient.
        precision: ``bf16`` or ``fp32``, inside the network alone; ``bf16`` is float32 on
            processors that only emulate it.
        preconditioning: ``climatology`` (a Wiener skip connection with the data's covariance) or
            ``scalar`` (EDM's).
        covariance_states, covariance_threshold: states of the training years that the covariance
            is taken from, and the smallest variance of an EOF that is kept.
        covariance_rest: largest share of a zonal wavenumber's variance left to smaller EOFs.
        covariance_parts: parts of the training years that cross-validate the EOFs' variances.
        start: checkpoint whose weights training starts from, carried over by the names of channels.
        weights: the ``parent``'s (that of ``start``), or ``new`` ones, so that only its covariance
            or normalisation is kept.
        covariance: ``fit`` it to the archive, or keep the ``parent``'s.
        normalisation: by the ``archive``'s climatology, or by the ``parent``'s.
        freeze: patterns of parameters that keep the parent's values.
        lora_rank, lora_layers: rank of low-rank updates (0: none), and patterns of the weights
            that get one; the parent's are then frozen.
        thaw: patterns of parameters that are trained beside low-rank updates.
        schedule, schedule_options: of a prior: the noise schedule and its arguments.
        noise_mean, noise_std: of a prior: the log-normal noise levels that training draws.
        cond_dropout: of a prior: share of samples trained without conditioning.
        hold: copy the training states to the device once (11 GB in the default world); a GPU takes
            batches faster than they can be read.
        compile: compile the network (``torch.compile``): minutes at the start, then faster steps.
        devices, num_nodes, strategy, accelerator: as Lightning's Trainer takes them; strategies
            ``ddp`` (copies) and ``fsdp`` (spread weights). Together: ``trainer: {devices: 2}``.
        log_every: steps between rows of the logs.
        checkpoint_minutes: time between two writings of what a killed run goes on from.
        seed: of weights, order, noise.
        notes: for the card.
    """

    name: str = "unnamed"
    kind: str = "prior"
    model: str = "unet_small"
    model_options: dict[str, Any] = field(default_factory=dict)
    archive: str = "archives/speedy-t21.zarr"
    variables: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=lambda: ["1979-01-01", "2003-12-31"])
    validate: list[str] = field(default_factory=lambda: ["2004-01-01", "2005-12-31"])
    hours: list[int] = field(default_factory=lambda: [6, 12, 18, 24])
    waves: int = 0
    modes: float = 0.0
    basis: str = ""
    corrected: list[int] = field(default_factory=list)
    stages: int = 1
    corrector_steps: int = 0
    batch_size: int = 32
    steps_per_epoch: int = 500
    validation_samples: int = 256
    max_steps: int | None = None
    max_minutes: float | None = None
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    clip: float = 1.0
    precision: str = "bf16"
    preconditioning: str = "climatology"
    covariance_states: int = 4000
    covariance_threshold: float = 0.01
    covariance_rest: float = 1.0
    covariance_parts: int = 3
    start: str = ""
    weights: str = "parent"
    covariance: str = "fit"
    normalisation: str = "archive"
    freeze: list[str] = field(default_factory=list)
    lora_rank: int = 0
    lora_layers: list[str] = field(default_factory=lambda: ["*"])
    thaw: list[str] = field(default_factory=list)
    schedule: str = "edm"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    noise_mean: float = 0.0
    noise_std: float = 1.5
    cond_dropout: float = 0.1
    hold: bool = False
    compile: bool = False
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    accelerator: str = "auto"
    log_every: int = 50
    checkpoint_minutes: float = 5.0
    seed: int = 0
    notes: str = ""

    def __post_init__(self) -> None:
        for key, known in CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                named = ", ".join(f"'{one}'" for one in known)
                raise GapzooError(f"recipe '{self.name}': {key} '{value}'; one of {named}")
        for period in ("train", "validate"):
            if len(getattr(self, period)) != 2:
                raise GapzooError(f"recipe '{self.name}': '{period}' needs a first and a last day")
        self._check_ranges()
        if self.max_steps is None and self.max_minutes is None:
            raise GapzooError(f"recipe '{self.name}': give a budget, max_steps or max_minutes")
        self._check_start()

    def _check_ranges(self) -> None:
        for key in POSITIVE:
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise GapzooError(f"recipe '{self.name}': {key} is {value}; it must be positive")
        if not 0 <= self.cond_dropout <= 1:
            raise GapzooError(f"recipe '{self.name}': cond_dropout is {self.cond_dropout}; 0 to 1")

    def _check_start(self) -> None:
        if self.lora_rank < 0:
            raise GapzooError(f"recipe '{self.name}': lora_rank is {self.lora_rank}; 0 is none")
        inherits = {
            "covariance: parent": self.covariance == "parent",
            "normalisation: parent": self.normalisation == "parent",
            "freeze": bool(self.freeze),
            "lora_rank": self.lora_rank > 0,
        }
        for key, wanted in inherits.items():
            if wanted and not self.start:
                raise GapzooError(f"recipe '{self.name}': '{key}' needs a checkpoint, 'start'")
            if wanted and self.weights == "new" and key in ("freeze", "lora_rank"):
                raise GapzooError(f"recipe '{self.name}': '{key}' needs 'weights: parent'")


def inherit(recipe: Recipe, parent: Recipe) -> Recipe:
    """A recipe of fine-tuning: what is learned and how networks are built is the parent's.

    A name without a dot becomes the tag behind the parent's architecture.

    Args:
        recipe: says the data, the budget and what moves.
        parent: recipe of the checkpoint.
    """
    same = {key: getattr(parent, key) for key in ARCHITECTURE}
    name = recipe.name if "." in recipe.name else f"{parent.model}.{recipe.name}"
    return dataclasses.replace(recipe, **same, name=name)


def load(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, its bases and the command line's changes.

    Args:
        path: a YAML file.
        overrides: ``key=value`` strings.

    Raises:
        GapzooError: for a missing or broken file, an unknown key or a value of a wrong type.
    """
    return _typed(Recipe, _merged(Path(path), ()), str(path), overrides or [])


def read(
    path: str | Path, overrides: list[str] | None = None, schema: type | None = None
) -> dict[str, Any]:
    """A recipe, its bases and the command line's changes as they stand, not checked.

    Args:
        path: a YAML file.
        overrides: ``key=value`` strings.
        schema: the dataclass that it will be, whose defaults a refusal of ``key=`` then names.
    """
    changes = _changes(overrides or [], _defaults(schema) if schema else None)
    merged = OmegaConf.merge(_merged(Path(path), ()), changes)
    return {str(k): v for k, v in OmegaConf.to_container(merged).items()}  # type: ignore[union-attr]


def typed(schema: type, values: dict[str, Any], where: str) -> Any:
    """Check a mapping against a dataclass, as recipes are checked."""
    return _typed(schema, OmegaConf.create(values), where, [])


def _merged(path: Path, above: tuple[Path, ...]) -> DictConfig:
    if path in above:
        raise GapzooError(f"recipe {path} is its own base; remove one 'base:'")
    try:
        own = OmegaConf.load(path)
    except (OSError, UnicodeError, YAMLError) as error:
        raise GapzooError(f"recipe {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(own, DictConfig):
        raise GapzooError(f"recipe {path} must be 'key: value' lines")
    own = _ungrouped(own, str(path))
    base = own.pop("base", None)
    if base is None:
        return own
    return OmegaConf.merge(_merged(path.parent / base, (*above, path)), own)  # type: ignore[return-value]


def _ungrouped(values: DictConfig, where: str) -> DictConfig:
    """``trainer: {devices: 2}`` as ``devices: 2``, in place."""
    group = values.pop("trainer", {})
    if not isinstance(group, Mapping | DictConfig):
        raise GapzooError(f"{where}: 'trainer' is {group}; it takes {', '.join(TRAINER)}")
    for key in group:
        if key not in TRAINER:
            raise GapzooError(f"{where}: unknown key 'trainer.{key}'; {nearest(str(key), TRAINER)}")
        if key in values:
            raise GapzooError(f"{where}: '{key}' is there alone and under 'trainer'; remove one")
    values.update(group)
    return values


def _typed(schema: type, values: Any, where: str, overrides: list[str]) -> Any:
    defaults = _defaults(schema)
    changes = _ungrouped(_changes(overrides, defaults), where)
    for key in [*values, *changes]:
        if key not in defaults:
            raise GapzooError(f"{where}: unknown key '{key}'; {nearest(str(key), defaults)}")
    try:
        given = _without_nulls(OmegaConf.merge(values, changes), schema, where)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    except (ConfigKeyError, OmegaConfBaseException) as error:
        key = getattr(error, "full_key", None)
        at = f"'{key}': " if key else ""
        raise GapzooError(f"{where}: {at}{str(error).splitlines()[0]}") from None


def _defaults(schema: type) -> dict[str, Any]:
    """Defaults by key; ``???`` where there is none."""
    found = OmegaConf.to_container(OmegaConf.structured(schema), resolve=False)
    return {str(k): v for k, v in found.items()}  # type: ignore[union-attr]


def _without_nulls(values: Any, schema: type, where: str) -> Any:
    """Null as its key's own none: itself, an empty text, list or mapping; refused without one."""
    kinds, defaults = get_type_hints(schema), _defaults(schema)
    raw: Any = OmegaConf.to_container(values, resolve=False)
    for key in [k for k, v in raw.items() if v is None]:
        default, kind = defaults[key], kinds[key]
        if kind is Any or type(None) in get_args(kind):
            continue
        if default not in EMPTY:
            like = "" if default == MISSING else f", such as {key}: {default},"
            like += f' {key}: "" for an empty text,' if like and isinstance(default, str) else ""
            raise GapzooError(
                f"{where}: '{key}' is empty (null); write a value{like} or leave '{key}' out"
            )
        values[key] = default
    return values


def _changes(overrides: list[str], defaults: Mapping[str, Any] | None = None) -> DictConfig:
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise GapzooError(f"'{text}' is no change; write key=value")
        if not value.strip():
            instead = _instead(key, defaults or {})
            raise GapzooError(f"'{text}' has nothing after '='; write {instead}, or leave it out")
        try:
            OmegaConf.from_dotlist([text])
        except YAMLError:
            raise GapzooError(f"'{text}': what follows '=' is no YAML; quote it") from None
    return OmegaConf.from_dotlist(overrides)


def _instead(key: str, defaults: Mapping[str, Any]) -> str:
    """What to write for ``key=`` alone."""
    default = defaults.get(key.removeprefix("trainer."), MISSING)
    if default == MISSING:
        return f"{key}=VALUE"
    if default is None or default in EMPTY:
        return f"{key}=VALUE, {key}=null for none"
    empty = f", or '{key}=\"\"' for an empty text" if isinstance(default, str) else ""
    return f"a value, such as {key}={_compact(default)}{empty}"


def _compact(value: Any) -> str:
    """A value as a shell takes it, without spaces."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def options(texts: list[str]) -> dict[str, Any]:
    """``key=value`` strings as a mapping; raises GapzooError for one that is none."""
    return dict(OmegaConf.to_container(_changes(texts)))  # type: ignore[arg-type]


def dump(recipe: Any) -> str:
    """A recipe as YAML, every key written out."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))
