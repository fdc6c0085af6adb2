"""What Triton's compiler made of the kernel that a launch ran: registers, spills, shared memory, tile.

Nothing of it exists for a library's kernels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# Constants of a kernel that say how it cuts its work; the others follow from the sizes and the epilogue.
_TILE_PREFIXES = (
    "BLOCK_",
    "GROUP_M",
    "NUM_PROGRAMS",
    "ROWS",
    "USE_TMA",
    "FLATTEN",
    "SPLIT_STORE",
    "CONSUMERS",
    "STAGES",
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """One compiled kernel. registers: of a thread. spills: registers that went to local memory.

    shared_bytes: of one CTA [B]. tile: its meta-parameters, `BLOCK_M=128 BLOCK_N=256 ... num_stages=3`.
    """

    kernel: str = ""
    registers: int = 0
    spills: int = 0
    shared_bytes: int = 0
    tile: str = ""


NOT_COMPILED = Compiled()


def first_kernel(launch: Callable[[], object]) -> Any:
    """Runs a launch and returns the kernel of ours that does its work, as compiled; None if there is none.

    Where a launch starts several (rows put in order, then their product; parts, then their sum), that is the
    one with the most shared memory, the first of equals.
    """
    import torch
    from triton import knobs

    started: list[int] = []

    def note(metadata: Any) -> None:
        started.append(metadata.data["function"])

    chain = knobs.runtime.launch_enter_hook
    chain.add(note)
    try:
        launch()
        torch.cuda.synchronize()
    finally:
        chain.remove(note)
    loaded = {kernel.function: kernel for kernel in _loaded()}
    ours = [loaded[function] for function in started if function in loaded]
    return max(ours, key=lambda kernel: kernel.metadata.shared, default=None)


def describe(kernel: Any) -> Compiled:
    """Returns the facts of a compiled kernel; those of none if it is None."""
    if kernel is None:
        return NOT_COMPILED
    return Compiled(
        kernel=str(kernel.metadata.name),
        registers=int(kernel.n_regs),
        spills=int(kernel.n_spills),
        shared_bytes=int(kernel.metadata.shared),
        tile=_tile(kernel),
    )


def _tile(kernel: Any) -> str:
    names = kernel.src.fn.arg_names
    constants = {names[path[0]]: value for path, value in kernel.src.constants.items()}
    chosen = [f"{name}={int(value)}" for name, value in constants.items() if name.startswith(_TILE_PREFIXES)]
    metadata = kernel.metadata
    return " ".join([*sorted(chosen), f"num_warps={metadata.num_warps}", f"num_stages={metadata.num_stages}"])


def _loaded() -> Iterator[Any]:
    """Yields every kernel of ours that is loaded on a GPU."""
    from triton.runtime.jit import JITFunction

    package = __package__.rpartition(".")[0] + ".kernels."
    modules = [module for name, module in sys.modules.items() if name.startswith(package)]
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, JITFunction):
                for caches in value.device_caches.values():
                    yield from caches[0].values()
