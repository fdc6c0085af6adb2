"""The stages of a compiled kernel, and a page about how it uses the SM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import CalibrationError
from ..kernels.occupancy import Occupancy, device_limits, occupancy
from ..kernels.tuning import tuned_config
from ..kernels.tuning_inputs import Case
from .compiled import Compiled, describe, first_kernel

TEXT_STAGES = ("ttir", "ttgir", "llir", "ptx", "sass")
# Instructions that tell how a kernel works, and what they mean. Source: CUDA Binary Utilities 13.0, Hopper
# instruction set; PTX ISA 9.0 for what they come from.
TELLING = {
    "HGMMA": "Hopper matrix products of 16-bit operands, by four warps from shared memory (wgmma)",
    "QGMMA": "the same for fp8",
    "IGMMA": "the same for int8",
    "HMMA": "Ampere matrix products, by one warp from registers (mma.sync)",
    "IMMA": "the same for integers",
    "UTMALDG": "tiles copied from HBM by the copy engine (TMA)",
    "UTMASTG": "tiles copied to HBM by the copy engine",
    "LDGSTS": "asynchronous copies from HBM to shared memory by threads (cp.async)",
    "LDG": "loads from HBM into registers",
    "STG": "stores from registers to HBM",
    "LDS": "loads from shared memory",
    "MUFU": "exponentials, reciprocals and the like",
    "LDL": "loads from local memory: spilled registers",
    "STL": "stores to local memory: spilled registers",
    "BAR": "barriers of a CTA",
}


@dataclass(frozen=True, slots=True)
class Stages:
    """A kernel as compiled for one case: texts of its stages by suffix, its facts, and how it fills an SM."""

    case: str
    compiled: Compiled
    num_warps: int
    occupancy: Occupancy
    files: Mapping[str, str]


def compile_case(case: Case) -> Stages:
    """Runs a tuning case once, with the configuration that this GPU was tuned to, and returns its stages.

    Raises: CalibrationError if the case starts none of our kernels.
    """
    launch, reference = case.prepare()
    config = tuned_config(case.kernel, case.variant, case.shape, reference.device) or case.candidates[0]
    kernel = first_kernel(partial(launch, config))
    if kernel is None:
        raise CalibrationError(f"{case.name}: launches no kernel of Triton's compiler")
    compiled = describe(kernel)
    num_warps = int(kernel.metadata.num_warps)
    filled = occupancy(
        device_limits(),
        registers_per_thread=compiled.registers,
        shared_bytes=compiled.shared_bytes,
        num_warps=num_warps,
    )
    return Stages(case.name, compiled, num_warps, filled, _texts(kernel.asm))


def _texts(asm: Mapping[str, Any]) -> dict[str, str]:
    """Returns the stages that are there; sass needs a disassembler, which not every host has."""
    texts = {}
    for stage in TEXT_STAGES:
        try:
            texts[stage] = str(asm[stage])
        except (KeyError, OSError, RuntimeError):
            continue
    return texts


def summary_text(stages: Stages) -> str:
    """Returns the page: registers, shared memory, occupancy, and the telling instructions counted."""
    compiled, filled = stages.compiled, stages.occupancy
    lines = [
        f"{stages.case}: {compiled.kernel}",
        f"  tile          {compiled.tile}",
        f"  registers     {compiled.registers} a thread, {compiled.spills} spilled",
        f"  shared memory {compiled.shared_bytes} B a CTA of {stages.num_warps} warps",
        f"  occupancy     {filled.ctas} CTAs, {filled.warps} warps an SM ({filled.share:.0%}), "
        f"limited by {filled.limit}",
    ]
    counts = instruction_counts(stages.files.get("sass", ""))
    lines += [f"  {count:5d} {name:8} {TELLING[name]}" for name, count in counts.items()]
    return "\n".join(lines)


def instruction_counts(sass: str) -> dict[str, int]:
    """Returns how often the telling instructions stand in the machine code; those that do not are left out.

    A line is `        /*0a10*/  @P0 HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24 ;` or without the address.
    """
    operations = re.findall(
        r"^\s*(?:/\*\w+\*/\s*)?(?:\S*:\S*\s+)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]+)\b", sass, re.M
    )
    return {name: found for name in TELLING if (found := operations.count(name))}
