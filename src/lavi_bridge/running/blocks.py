"""A model's repeated blocks, and what is done block by block: compiling, and sharding (FSDP2).

A block is an outermost entry of a module list: a layer of a transformer, a stage of a U-Net.
Blocks bound what a compiler sees at once, and what a process gathers at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lavi_bridge.config import Compile
from lavi_bridge.errors import BridgeError

SHAPES = 64
"""Programs that one block's code may be compiled to (equal layers share theirs); further shapes run
uncompiled."""


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost entries of a model's module lists, in order."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from blocks(child)


def compile_blocks(models: Sequence[nn.Module], how: Compile) -> int:
    """Compile each block at its first call; return how many there are.

    PyTorch's `Module.compile` in place, so names and weights stay what they are. The first step
    takes as long as the different blocks do, not as the whole model would.
    """
    if how == "none":
        return 0
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    found = [block for model in models for block in blocks(model)]
    for block in found:
        block.compile(dynamic=False, mode="reduce-overhead" if how == "graphs" else None)
    return len(found)


def compile_sampling(model: nn.Module, how: Compile) -> int:
    """Compile an image model's blocks for many pictures of one size; return how many there are."""
    if how == "graphs":  # what the last call's graphs gave is used up
        model.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())
    return compile_blocks([model], how)


def uncompiled(how: Compile) -> AbstractContextManager[object]:
    """Inside, compiled blocks run as they were: for shapes that come once, as in sampling."""
    return nullcontext() if how == "none" else torch.compiler.set_stance("force_eager")


def shard(models: Sequence[nn.Module], device: torch.device) -> None:
    """Spread the models' weights over all processes (FSDP2: `torch.distributed.fsdp.fully_shard`).

    Each process keeps its part of every weight, gradient and optimizer state, and gathers a block's
    weights while the block runs. Every process must then make the same calls. Parameters become new
    objects (DTensors), so this comes before the optimizer.

    Raises:
        BridgeError: there is only one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise BridgeError(
            "'shard' spreads the weights over several processes, and there is one: start with "
            "`torchrun --nproc_per_node N -m lavi_bridge train …`"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # it warns of in-place work on a model's answer, which nothing here does
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
    for model in models:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # it takes no other
        head = getattr(model, "pool", None)
        heads = [head] if isinstance(head, nn.Sequential) else []
        for block in [*blocks(model), *heads, model]:  # a head is called on its own
            # always: weights that stayed gathered would miss what is written to their parts
            fully_shard(block, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the parts of all processes; every process must ask. Others pass through."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; others pass through."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value`, whole, spread over the processes as `tensor` is, on its device."""
    value = value.to(tensor.device)
    if not isinstance(tensor, DTensor) or value.shape != tensor.shape:
        return value
    return distribute_tensor(value, tensor.device_mesh, tensor.placements)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, the trained parameters are whole on every process: to be read and written, not run.

    Every process must enter; the frozen weights stay where they are.
    """
    held = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and isinstance(parameter, DTensor)
    ]
    for module, name, parameter in held:
        setattr(module, name, nn.Parameter(whole(parameter.detach())))
    try:
        yield
    finally:
        for module, name, parameter in held:
            setattr(module, name, parameter)
