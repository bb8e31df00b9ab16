"""Several devices: what a recipe's ``strategy`` stands for, and how weights are spread.

``ddp`` copies the network to every process and averages gradients; ``fsdp`` (FSDP2) spreads the
weights, their average and the optimiser's state over the processes, block by block. Any other name
is handed to Lightning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError, nearest
from gapzoo.denoisers.mixture import LevelExperts
from gapzoo.denoisers.stages import Stages
from gapzoo.denoisers.transformer import Block
from gapzoo.denoisers.unet import ResidualBlock


def strategy_of(name: str, devices: int | str, nodes: int) -> Any:
    """What Lightning's Trainer takes for a recipe's strategy.

    Args:
        name: ``auto``, ``ddp``, ``fsdp`` or another of Lightning's.
        devices: of each node.
        nodes: number of nodes.

    Raises:
        GapzooError: for an unknown one, or ``fsdp`` where the number of devices is not given.
    """
    from lightning.pytorch.strategies import StrategyRegistry

    known = {"auto", *StrategyRegistry.available_strategies()}
    if name not in known:
        raise GapzooError(f"no strategy '{name}'; {nearest(name, known)}")
    if name != "fsdp":
        return name
    if not isinstance(devices, int):
        raise GapzooError(f"strategy 'fsdp' needs the number of devices, not '{devices}'")
    from lightning.pytorch.strategies import ModelParallelStrategy

    return ModelParallelStrategy(
        data_parallel_size=devices * nodes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def require_spreadable(network: nn.Module) -> None:
    """Raise GapzooError for experts by noise level, of which a process may meet none in a step."""
    for module in network.modules():
        few = isinstance(module, LevelExperts) and len(module.networks) > 1
        if few or isinstance(module, Stages):
            raise GapzooError("strategy 'fsdp' cannot spread experts by noise level; take 'ddp'")


def shard(network: nn.Module, mesh: Any) -> None:
    """Spread a network's weights over a mesh of processes, in place; done once."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(network, FSDPModule):
        return
    require_spreadable(network)
    network.to(memory_format=torch.contiguous_format)  # no other can be spread
    for module in network.modules():
        if isinstance(module, Block | ResidualBlock):
            fully_shard(module, mesh=mesh)
    # the average is never passed backward, after which the outermost one would be spread again
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory: all of it, or its part."""
    local = getattr(tensor, "to_local", None)
    return tensor if local is None else local()
