"""Fine-tuning: weights carried over by the names of channels, frozen parts, updates of low rank.

A network reads its channels in layers called ``stem`` and writes them in layers called ``head``;
nothing else of it knows the channels, and nothing at all the grid. So weights are carried to other
channels by moving the columns and rows of those layers. What is new starts at zero: the state's
new channels are first denoised by the Wiener filter alone, and its new inputs are not yet read.
Only a layer called ``noise`` stays as it begins where the parent has none: members must differ.

Low rank (LoRA, Hu et al. 2021, arXiv 2106.09685): W + B A, with W kept, B (rows, r) zero at first
and A (r, columns) drawn. A checkpoint holds the sum, so that loading it knows nothing of this.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gapzoo.core import GapzooError, nearest
from gapzoo.core.world import World
from gapzoo.training.optimise import seeded

Labels = Sequence[str]


def input_labels(world: World, wiener: bool = False, change: bool = False) -> list[str]:
    """Names of what a stem reads, in order.

    Args:
        world: of the states: they, the condition and the rows are always read.
        wiener: the Wiener-filtered state too, behind the condition.
        change: the noisy change first, and the lead behind the condition.
    """
    channels = world.channels.labels
    condition = ["given", "cosine of year", "sine of year", *world.forcing_channels]
    condition += ["height", "land", "sine of latitude"]
    before = [f"change of {c}" for c in channels] if change else []
    behind = [f"filtered {c}" for c in channels] if wiener else ["lead"] if change else []
    return [*before, *channels, *condition, *behind, "row sine", "row cosine"]


def carry(
    network: nn.Module,
    weights: dict[str, Tensor],
    inputs: tuple[Labels, Labels],
    outputs: tuple[Labels, Labels],
) -> None:
    """Give a network a parent's weights, in place.

    Args:
        network: of the parent's kind, for other channels or the same.
        weights: the parent's state dict.
        inputs: labels of what the parent's stem reads, and of what the network's reads.
        outputs: the same of what their heads write.

    Raises:
        GapzooError: where the networks differ in more than their channels.
    """
    try:
        network.load_state_dict(_moved(network.state_dict(), weights, inputs, outputs))
    except (RuntimeError, IndexError) as error:
        line = " ".join(str(error).split())
        raise GapzooError(f"the parent is another network: {line}") from None


def _moved(
    own: dict[str, Tensor],
    weights: dict[str, Tensor],
    inputs: tuple[Labels, Labels],
    outputs: tuple[Labels, Labels],
) -> dict[str, Tensor]:
    moved = dict(weights)
    for name in weights.keys() & own.keys():
        layer, _, leaf = name.rpartition(".")
        if layer.endswith("stem") and leaf == "weight":
            moved[name] = _move(weights[name], own[name], inputs, 1)
        elif layer.endswith("head"):
            moved[name] = _move(weights[name], own[name], outputs, 0)
        elif leaf == "scale":  # a forecaster's typical changes, which are its world's
            moved[name] = own[name]
    fresh = {n: w for n, w in own.items() if n.endswith("noise.weight") and n not in weights}
    return moved | fresh


def _move(old: Tensor, own: Tensor, labels: tuple[Labels, Labels], dim: int) -> Tensor:
    """``own``'s rows of the parent's labels from ``old``, zero elsewhere."""
    theirs, mine = labels
    if old.shape[dim] != len(theirs) or own.shape[dim] != len(mine):
        raise GapzooError(
            f"a layer of {old.shape[dim]} channels for {len(theirs)} of the parent's, "
            f"one of {own.shape[dim]} for {len(mine)} here; is its architecture its own?"
        )
    to = [i for i, label in enumerate(mine) if label in theirs]
    source = [theirs.index(mine[i]) for i in to]
    out = torch.zeros_like(own)
    device = own.device
    chosen = old.to(own).index_select(dim, torch.tensor(source, device=device, dtype=torch.long))
    return out.index_copy(dim, torch.tensor(to, device=device, dtype=torch.long), chosen)


class LowRank(nn.Module):
    """W (rows, columns...) or (E, rows, columns) to W + B A.

    Args:
        weight: W, for its shape.
        rank: r.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        *ahead, rows, columns = self._matrix(weight).shape
        self.a = nn.Parameter(torch.randn(*ahead, rank, columns) * columns**-0.5)
        self.b = nn.Parameter(torch.zeros(*ahead, rows, rank))

    @staticmethod
    def _matrix(weight: Tensor) -> Tensor:
        return weight if weight.ndim == 3 else weight.flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        """The sum."""
        return weight + (self.b @ self.a).reshape(weight.shape)


def freeze(network: nn.Module, patterns: Iterable[str]) -> None:
    """Keep the parameters that match shell-style patterns as they are.

    Raises:
        GapzooError: for a pattern that matches none, or where none is left to train.
    """
    parameters = dict(network.named_parameters())
    for name in _matching(parameters, patterns):
        parameters[name].requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise GapzooError("every parameter is frozen; freeze fewer of them")


def low_rank(
    network: nn.Module, rank: int, layers: Iterable[str], thaw: Iterable[str] = (), seed: int = 0
) -> None:
    """Freeze a network, and add a low-rank update to the weights that match patterns, in place.

    Args:
        network: the backbone.
        rank: r.
        layers: shell-style patterns of the names of matrices and kernels.
        thaw: patterns of parameters that are trained as they are.
        seed: of the factors.
    """
    parameters = dict(network.named_parameters())
    network.requires_grad_(False)
    free = _matching(parameters, thaw)
    for name in free:
        parameters[name].requires_grad_(True)
    kernels = {n: p for n, p in parameters.items() if p.ndim > 1}
    with seeded(seed, "low rank"):
        for name in _matching(kernels, layers):
            if name not in free:
                owner, _, leaf = name.rpartition(".")
                update = LowRank(kernels[name], rank).to(kernels[name].device)
                parametrize.register_parametrization(network.get_submodule(owner), leaf, update)


def merged(network: nn.Module) -> nn.Module:
    """A copy without parametrisations: low-rank updates added to the weights."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module):
            for leaf in list(module.parametrizations):  # type: ignore[arg-type,union-attr]
                parametrize.remove_parametrizations(module, leaf)
    return plain


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    known, found = list(names), []
    for pattern in patterns:
        some = fnmatch.filter(known, pattern)
        if not some:
            raise GapzooError(f"no parameter matches '{pattern}'; {nearest(pattern, known)}")
        found += [n for n in some if n not in found]
    return found
