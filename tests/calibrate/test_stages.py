"""What the compiler made of a kernel: facts, a page, and the instructions that tell how it works."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from simllm.calibrate.compiled import NOT_COMPILED, Compiled, describe
from simllm.calibrate.stages import Stages, instruction_counts, summary_text
from simllm.kernels.occupancy import SmLimits, occupancy

HOPPER = SmLimits(warps=64, ctas=32, registers=65536, shared_bytes=233472)
SASS = """Function:_gemm_kernel
--:-:-:Y:2\tMOV R1, c[0x0][0x28];
--:-:0:-:2\t@!P0 UTMALDG.2D [UR8], [UR4];
LBB0:
01:-:-:Y:4\tHGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24;
--:-:-:-:4\tHGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24;
        /*0a10*/                   @P1 LDG.E.128 R4, desc[UR6][R2.64] ;
"""


def compiled_kernel() -> SimpleNamespace:
    names = ["a_ptr", "m", "BLOCK_M", "BLOCK_N", "HAS_BIAS"]
    source = SimpleNamespace(
        fn=SimpleNamespace(arg_names=names), constants={(2,): 128, (3,): 64, (4,): False}
    )
    metadata = SimpleNamespace(name="_gemm_kernel", shared=98304, num_warps=4, num_stages=3)
    return SimpleNamespace(src=source, metadata=metadata, n_regs=168, n_spills=0)


def test_a_kernel_is_described_by_registers_memory_and_tile():
    assert describe(compiled_kernel()) == Compiled(
        "_gemm_kernel", 168, 0, 98304, "BLOCK_M=128 BLOCK_N=64 num_warps=4 num_stages=3"
    )


def test_a_library_has_nothing_to_describe():
    assert describe(None) is NOT_COMPILED


def test_instructions_are_counted_whatever_stands_before_them():
    assert instruction_counts(SASS) == {"HGMMA": 2, "UTMALDG": 1, "LDG": 1}
    assert instruction_counts("") == {}


def test_the_page_says_what_ends_the_occupancy():
    facts = describe(compiled_kernel())
    filled = occupancy(HOPPER, registers_per_thread=168, shared_bytes=98304, num_warps=4)
    page = summary_text(Stages("gemm bf16 4096x4096x4096", facts, 4, filled, {"sass": SASS}))
    # 98,304 + 1,024 B of 233,472: two CTAs of 4 warps each, 8 of 64 warps.
    assert "2 CTAs, 8 warps an SM (12%), limited by shared memory" in page
    assert "168 a thread, 0 spilled" in page
    assert "    2 HGMMA" in page
