"""A GPU that is not there: tensors say `cuda:0`, hold real values, and refuse what CUDA refuses.

Every storage made "on cuda" is an ordinary CPU storage with a tag, so all arithmetic is real, and
`.item()`, branches on values, safetensors, optimizers and backward run as they are. On top:

* `tensor.device` and `.is_cuda` tell the tag; `torch.cuda.is_available()` is true;
* an operation on tensors of two devices raises CUDA's own error (a 0-dim CPU tensor may join an
  elementwise one, CPU indices may index), and so do `.numpy()` on the device and a CPU generator
  that fills a device tensor;
* every wait of the host for the device is counted with the line that asked for it: `.item()`,
  `bool()`, `.tolist()`, `nonzero`, copies in either direction unless they are `non_blocking`, the
  host's side is pinned, and neither type nor layout changes;
* float64 on the device is listed (an H100 is slow in it), and so are values that are not finite, if
  asked.

    with FakeCuda() as gpu:
        bridge = Bridge.connect(..., device="cuda")   # bfloat16 by default, as on a GPU
        gpu.reset(); bridge.loss(...).backward(); print(gpu.report())

    python -m pytest -m gpu -p tests.fake_cuda tests/test_gpu.py    # the GPU's tests, on this one

Import what is to be tried before a FakeCuda is entered: libraries look for the GPU's own packages
when they are imported. What C++ makes inside one operation (`pad_sequence`, `one_hot`, zeros for a
part of a split without a gradient) is on the CPU here: a false alarm. What it cannot show: kernels
(speed, memory, TF32, cuDNN, non-determinism), streams, NCCL, CUDA graphs, Triton, and the errors
that only a CUDA kernel's own checks give.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any, Self
from unittest.mock import patch

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
REAL_DEVICE = Tensor.device.__get__
REAL_DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]
IS_CUDA, IS_CPU = Tensor.is_cuda.__get__, Tensor.is_cpu.__get__  # type: ignore[attr-defined]
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "_linalg_check_errors",
    "linalg_eigvals",
    "linalg_eig",
    "_linalg_eigh",
}
"""Operations whose result decides a shape or a branch on the host."""
INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
ANY_DEVICE = {"copy_", "_foreach_copy_", "copy", "set_", "detach", "_to_copy", "alias"}
STRICT = {
    "cat",
    "stack",
    "embedding",
    "gather",
    "index_select",
    "mm",
    "bmm",
    "addmm",
    "convolution",
    "scatter",
    "native_layer_norm",
    "native_group_norm",
    "_fused_adamw_",
    "_fused_adam_",
}
"""Operations that do not take so much as a number from another device."""


class FakeCuda:
    """A context in which there are `count` GPUs; it counts what happens on them.

    Args:
        project: part of the path of the files whose lines are named.
        nan: also list what is not finite (slow).
    """

    def __init__(self, count: int = 1, *, project: str = "lavi_bridge", nan: bool = False) -> None:
        self.count, self.project, self.nan = count, project, nan
        self.current = 0
        self._tags: dict[int, tuple[StorageWeakRef, torch.device]] = {}
        self._pinned: dict[int, StorageWeakRef] = {}
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.waits: Counter[tuple[str, str]] = Counter()
        self.bytes_moved: Counter[str] = Counter()
        self.doubles: Counter[str] = Counter()
        self.not_finite: Counter[str] = Counter()
        self.scalars: Counter[str] = Counter()
        self.operations = 0

    def report(self, top: int = 40) -> str:
        """What was counted, most frequent first."""
        waits = {f"{kind:10} {line}": number for (kind, line), number in self.waits.items()}
        kinds = [
            ("", Counter(waits)),
            ("float64    ", self.doubles),
            ("cpu scalar ", self.scalars),
            ("not finite ", self.not_finite),
        ]
        lines = [
            f"{self.operations} operations on the device, {self.waits.total()} waits, "
            f"{self.bytes_moved.total()} bytes moved"
        ]
        for name, found in kinds:
            lines += [f"  {number:5} {name}{line}" for line, number in found.most_common(top)]
        return "\n".join(lines)

    # ---- what a tensor is said to be

    def full(self, device: Any) -> torch.device:
        """A device with its number; CUDA's error for one that is not there."""
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        if device.type != "cuda":
            return device
        index = self.current if device.index is None else device.index
        if index >= self.count:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({device})")
        return torch.device("cuda", index)

    def of(self, tensor: Tensor) -> torch.device:
        """Where a tensor is said to be."""
        storage = _storage(tensor)
        if storage is None:
            return REAL_DEVICE(tensor)
        found = self._tags.get(storage._cdata)
        return found[1] if found else CPU

    def put(self, tensor: Tensor, device: torch.device) -> None:
        """Say that a tensor is on `device`, with all that share its memory."""
        storage = _storage(tensor)
        if storage is None:
            return
        if device.type == "cuda":
            self._tags[storage._cdata] = StorageWeakRef(storage), device
        else:
            self._tags.pop(storage._cdata, None)
        if len(self._tags) > 20_000:
            self._tags = {k: v for k, v in self._tags.items() if not v[0].expired()}

    def pin(self, tensor: Tensor) -> None:
        """Say that a tensor's memory is pinned."""
        storage = _storage(tensor)
        if storage is None or self.of(tensor) != CPU:
            raise RuntimeError("only dense CPU tensors can be pinned")
        self._pinned[storage._cdata] = StorageWeakRef(storage)
        if len(self._pinned) > 2_000:
            self._pinned = {k: v for k, v in self._pinned.items() if not v.expired()}

    def pinned(self, tensor: Tensor) -> bool:
        storage = _storage(tensor)
        return storage is not None and storage._cdata in self._pinned

    # ---- what is counted

    def wait(self, kind: str) -> None:
        """Count one wait of the host, with the line that asked for it."""
        self.waits[kind, _where(self.project)] += 1

    def copied(self, source: Tensor, made: Tensor, *, non_blocking: bool) -> None:
        """Count a copy between two devices, and the wait that it is."""
        upwards = self.of(made).type == "cuda"
        kind = "host>dev" if upwards else "dev>host"
        self.bytes_moved[kind] += made.nbytes
        # what `.to("cpu", non_blocking=True)` makes is pinned by itself
        host_side = source if upwards else made
        as_it_is = source.is_contiguous() and REAL_DTYPE(source) == REAL_DTYPE(made)
        if not (non_blocking and self.pinned(host_side) and as_it_is):
            self.wait(kind)

    def grouped(self, lists: Sequence[Sequence[Any]], with_indices: bool = False) -> dict[Any, Any]:
        """What `_group_tensors_by_device_and_dtype` does, in C++, by the real devices."""
        found: dict[Any, Any] = {}
        for index, first in enumerate(lists[0]):
            key = self.of(first), REAL_DTYPE(first)
            rows, indices = found.setdefault(key, ([[] for _ in lists], []))
            for row, values in zip(rows, lists, strict=True):
                row.extend(values[index : index + 1])
            indices.extend([index] if with_indices else [])
        return found

    # ---- on and off

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        enter = self._stack.enter_context
        enter(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        for name, fake in self._driver().items():
            enter(patch.object(torch.cuda, name, fake))
        for module in map(import_module, ("torch.nn.utils.clip_grad", "torch.optim.optimizer")):
            enter(patch.object(module, "_group_tensors_by_device_and_dtype", self.grouped))
        enter(_Below(self))
        face = enter(_Face(self))
        run_backward = torch.autograd._engine_run_backward

        def backward(*args: Any, **kwargs: Any) -> Any:
            with face:  # what it runs again (checkpointing) must see the GPU, too
                return run_backward(*args, **kwargs)

        enter(patch.object(torch.autograd, "_engine_run_backward", backward))
        # what autograd packs from C++ tells its real device, so only shapes and types are compared
        checks: Any = torch.utils.checkpoint._allowed_determinism_checks_to_fns
        enter(patch.dict(checks, default=lambda x: (x.shape, REAL_DTYPE(x))))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _driver(self) -> Mapping[str, Callable[..., Any]]:
        """What stands for functions of `torch.cuda`."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: self.count,
            "current_device": lambda: self.current,
            "set_device": lambda device: setattr(self, "current", self.full(device).index),
            "get_device_name": lambda *_: "a simulated GPU",
            "get_device_capability": lambda *_: (9, 0),
            "is_bf16_supported": lambda *_, **__: True,
            "synchronize": lambda *_: self.wait("synchronize"),
            "current_stream": lambda *_: None,
            "empty_cache": lambda: None,
            "memory_allocated": lambda *_: 0,
            "max_memory_allocated": lambda *_: 0,
            "reset_peak_memory_stats": lambda *_: None,
            "mem_get_info": lambda *_: (80 << 30, 80 << 30),
            "manual_seed": lambda _: None,
            "manual_seed_all": lambda _: None,
            "get_rng_state": lambda *_: torch.random.get_rng_state(),
            "set_rng_state": lambda *_: None,
        }


class _Face(TorchFunctionMode):
    """What Python sees: devices asked for and told, moves, and what leaves for numpy."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__()
        self.gpu = gpu
        self.special: dict[Any, Callable[..., Any]] = {
            REAL_DEVICE: gpu.of,
            IS_CUDA: lambda tensor: gpu.of(tensor).type == "cuda",
            IS_CPU: lambda tensor: gpu.of(tensor) == CPU,
            Tensor.get_device: lambda tensor: -1 if gpu.of(tensor) == CPU else gpu.of(tensor).index,
            Tensor.is_pinned: gpu.pinned,
            Tensor.pin_memory: lambda x: x if gpu.pinned(x) else self._pinned(x.clone()),
            Tensor.to: self._to,
            Tensor.cpu: lambda tensor, **options: self._move(tensor, CPU, options),
            Tensor.cuda: self._cuda,
            Tensor.numpy: lambda *args, **kwargs: self._numpy(Tensor.numpy, *args, **kwargs),
            Tensor.__array__: lambda *args, **kw: self._numpy(Tensor.__array__, *args, **kw),
            Tensor.tolist: self._tolist,
            Tensor.__deepcopy__: self._deepcopy,
            nn.functional.scaled_dot_product_attention: self._attention,
        }

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if special := self.special.get(func):
            return special(*args, **(kwargs or {}))
        if not kwargs:
            return func(*args)
        if kwargs.get("pin_memory"):
            return self._pinned(func(*args, **kwargs | {"pin_memory": False}))
        if kwargs.get("device") is None or isinstance(kwargs["device"], Tensor):
            return func(*args, **kwargs)
        return self._make(func, args, dict(kwargs))

    def _numpy(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.gpu.of(tensor) != CPU:
            raise TypeError(
                f"can't convert {self.gpu.of(tensor)} device type tensor to numpy. Use Tensor.cpu()"
                " to copy the tensor to host memory first."
            )
        return func(tensor, *args, **kwargs)

    def _tolist(self, tensor: Tensor) -> Any:
        if self.gpu.of(tensor) != CPU:
            self.gpu.wait("tolist")
        with torch._C.DisableTorchFunction():  # it asks for the device
            return tensor.tolist()

    def _deepcopy(self, tensor: Tensor, memo: Any) -> Tensor:
        made = Tensor.__deepcopy__(tensor, memo)
        self.gpu.put(made, self.gpu.of(tensor))
        return made

    def _cuda(self, tensor: Tensor, device: Any = None, **options: Any) -> Tensor:
        return self._move(tensor, self.gpu.full("cuda" if device is None else device), options)

    def _pinned(self, tensor: Tensor) -> Tensor:
        self.gpu.pin(tensor)
        return tensor

    def _attention(self, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """With dropout, C++ makes the causal mask itself, and by the real device."""
        if kwargs.get("is_causal") and kwargs.get("dropout_p") and self.gpu.of(query) != CPU:
            mask = torch.ones((query.shape[-2], key.shape[-2]), dtype=torch.bool).tril()
            self.gpu.put(mask, self.gpu.of(query))
            kwargs |= {"is_causal": False, "attn_mask": mask}
        return nn.functional.scaled_dot_product_attention(query, key, *args, **kwargs)

    def _make(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A tensor that is made on a device."""
        gpu, wanted, name = self.gpu, self.gpu.full(kwargs["device"]), getattr(func, "__name__", "")
        if wanted.type not in ("cuda", "cpu"):
            return func(*args, **kwargs)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != wanted.type:
            raise RuntimeError(
                f"Expected a '{wanted.type}' device type for generator but found "
                f"'{generator.device.type}'"
            )
        if name in ("as_tensor", "asarray") and args and isinstance(args[0], Tensor):
            return self._move(args[0], wanted, {"dtype": kwargs.get("dtype")})
        made = func(*args, **kwargs | {"device": "cpu"})
        for tensor in _tensors(made):
            gpu.put(tensor, wanted)
        if wanted.type == "cuda" and name in ("tensor", "as_tensor", "new_tensor"):
            gpu.wait("host>dev")  # made on the host, and copied
        return made

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        other = kwargs.pop("other", None)
        if args and isinstance(args[0], Tensor):
            other, args = args[0], args[1:]
        if other is not None:
            options = dict(zip(("non_blocking", "copy"), args, strict=False)) | kwargs
            return self._move(tensor, self.gpu.of(other), options | {"dtype": REAL_DTYPE(other)})
        device, rest = kwargs.pop("device", None), list(args)
        if rest and not isinstance(rest[0], torch.dtype):
            device = rest.pop(0)
        target = self.gpu.of(tensor) if device is None else self.gpu.full(device)
        names = ("dtype", "non_blocking", "copy")
        return self._move(tensor, target, kwargs | dict(zip(names, rest, strict=False)))

    def _move(self, tensor: Tensor, device: torch.device, options: dict[str, Any]) -> Tensor:
        gpu, here = self.gpu, self.gpu.of(tensor)
        options = {k: v for k, v in options.items() if v is not None}
        if {device.type, here.type} - {"cuda", "cpu"}:
            return Tensor.to(tensor, device=device, **options)
        if here == device:
            return Tensor.to(tensor, **options)
        made = Tensor.to(tensor, **options | {"copy": True})
        non_blocking = options.get("non_blocking", False)
        gpu.put(made, device)
        if non_blocking and device == CPU:
            gpu.pin(made)
        if device.type == "cuda" and REAL_DTYPE(made) == torch.float64:
            gpu.doubles[f"to()  {_where(gpu.project)}"] += 1
        gpu.copied(tensor, made, non_blocking=non_blocking)
        return made


class _Below(TorchDispatchMode):
    """Below autograd: what meets what, and what comes of it."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            given = _tensors((args, kwargs))
            placed = [(tensor, self.gpu.of(tensor)) for tensor in given]
            on = {device for _, device in placed if device.type == "cuda"}
            if not on or any(device.type == "meta" for _, device in placed):
                return func(*args, **kwargs)
            name = func._schema.name.partition("::")[2]
            self._check(name, placed, on)
            if name == "copy_":
                if placed[0][1] != placed[1][1]:
                    asked = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
                    self.gpu.copied(given[1], given[0], non_blocking=asked)
            elif name in INDEXING:
                self._index(name, placed)
            if name in WAITING or (name == "repeat_interleave" and _counts(func, kwargs)):
                self.gpu.wait({"_local_scalar_dense": "item"}.get(name, name))
            generator = kwargs.get("generator")
            if generator is not None and generator.device.type == "cpu":
                raise RuntimeError(
                    f"Expected a 'cuda' device type for generator but found 'cpu' ({name})"
                )
            made = func(*args, **kwargs)
            self._note(name, given, made, placed[0][1] if name == "copy_" else next(iter(on)))
            return made

    def _check(
        self, name: str, placed: list[tuple[Tensor, torch.device]], on: set[torch.device]
    ) -> None:
        """Refuse tensors of different devices, as CUDA does."""
        if name in ANY_DEVICE or (name in INDEXING and len(on) == 1):
            return
        hosted = [tensor for tensor, device in placed if device == CPU]
        if hosted:
            self.gpu.scalars[f"{name}  {_where(self.gpu.project)}"] += 1
        alien = [tensor for tensor in hosted if tensor.ndim or name in STRICT]
        if len(on) > 1 or alien:
            found = sorted(map(str, on)) + ["cpu"] * bool(alien)
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(found)}! ({name}, {[tuple(tensor.shape) for tensor in alien]})"
            )

    def _index(self, name: str, placed: list[tuple[Tensor, torch.device]]) -> None:
        """Indices may come from the host, and then cost a copy; masks cost a look at them."""
        if placed[0][1] == CPU:
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        for tensor, device in placed[1:]:
            if device == CPU and tensor.is_floating_point() and tensor.ndim:
                raise RuntimeError(f"{name}: values on cpu, self on {placed[0][1]}")
            if device == CPU:
                self.gpu.wait("host>dev")
            elif tensor.dtype == torch.bool:
                self.gpu.wait("nonzero")

    def _note(self, name: str, given: list[Tensor], made: Any, device: torch.device) -> None:
        """Say where results are, and list those in float64 and those that are not finite."""
        gpu = self.gpu
        gpu.operations += 1
        before = {storage._cdata for tensor in given if (storage := _storage(tensor)) is not None}
        for tensor in _tensors(made):
            storage = _storage(tensor)
            if storage is None:
                continue
            if storage._cdata not in before:
                gpu.put(tensor, device)
            if tensor.dtype == torch.float64:
                gpu.doubles[f"{name}  {_where(gpu.project)}"] += 1
            if gpu.nan and not name.startswith(("empty", "new_empty")) and not _finite(tensor):
                gpu.not_finite[f"{name} {tensor.dtype}  {_where(gpu.project)}"] += 1


def _tensors(values: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and mappings."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _storage(tensor: Tensor) -> Any:
    """A CPU tensor's memory; None for others, and where there is none."""
    if REAL_DEVICE(tensor) != CPU:
        return None
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _counts(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether `repeat_interleave` must look at its numbers to know how much it makes."""
    return func._overloadname == "Tensor" and kwargs.get("output_size") is None


def _where(project: str) -> str:
    """The innermost line of the project on the stack, and the innermost of anything but torch."""
    frame: Any = sys._getframe(2)
    own = inner = ""
    while frame is not None and not own:
        name = frame.f_code.co_filename
        if not any(part in name for part in ("fake_cuda", "/torch/", "<frozen")):
            inner = inner or f"{'/'.join(name.rsplit('/', 3)[-2:])}:{frame.f_lineno}"
            if f"/{project}/" in name:
                own = f"{name.split(f'/{project}/')[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return own if not inner or (own and inner.endswith(own)) else f"{own} < {inner}"


SIMULATED = pytest.StashKey[FakeCuda]()
"""Where a pytest that runs on simulated GPUs keeps them."""


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin (`-p tests.fake_cuda`): all tests run beside two simulated GPUs."""
    import lavi_bridge.train.run  # noqa: F401  # libraries look for the GPU's own when imported

    config.stash[SIMULATED] = gpu = FakeCuda(2).__enter__()
    config.add_cleanup(lambda: gpu.__exit__(None, None, None))
