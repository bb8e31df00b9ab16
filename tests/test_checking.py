"""The memory that ``gapzoo check`` foretells is what PyTorch counts."""

import io

import pytest
import torch
from models import TINY
from worlds import flat_world

from gapzoo.checking import activations, kept_bytes, training_parts
from gapzoo.training.denoisers import ZooDenoiser

TOKENS = {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8}
SIZES = {
    "unet_small": TINY,
    "transformer_small": TOKENS,
    "mixture_small": {**TOKENS, "experts": 3},
}


def module_for(name: str, world, **more) -> ZooDenoiser:
    return ZooDenoiser(
        name,
        channels=len(world.channels),
        cond_channels=world.cond_channels,
        architecture={**SIZES[name], **more},
    )


def size(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("name", SIZES)
def test_activations_of_a_batch_are_what_pytorch_keeps_of_it(name):
    """Copies of weights in bfloat16, and other constants, do not grow with the batch."""
    world = flat_world(3)
    module = module_for(name, world)
    kept = kept_bytes(module, world, 7)
    assert activations(module, world, 7) == pytest.approx(kept, rel=0.01)
    assert kept < 7 * kept_bytes(module, world, 1)


def test_weights_their_optimiser_and_the_copy_that_is_saved_are_counted_as_they_are():
    world = flat_world(3)
    module = module_for("unet_small", world, widths=[64])
    optimizer = module.optimisation.build(module.trained)
    state, cond = torch.zeros(1, *world.shape), torch.zeros(1, world.cond_channels, 1, 1)
    module.example(state, cond.expand(-1, -1, *world.shape[1:])).sum().backward()
    for p in module.live.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moments = [t for s in optimizer.state.values() for t in s.values() if t.ndim]
    held = [*module.live.parameters(), *module.backbone.parameters(), *moments]
    parts = training_parts(module, world, 1)
    with_gradients = size(held) + size(p.grad for p in module.live.parameters())
    assert parts["weights, average and optimiser"] == with_gradients
    file = io.BytesIO()
    torch.save([module.state_dict(), optimizer.state_dict()], file)
    assert parts["a copy while saving"] == pytest.approx(len(file.getvalue()), rel=0.05)
