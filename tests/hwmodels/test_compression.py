"""Quantised and sparse KV caches and weights: bytes by hand, and what they make of a step."""

from __future__ import annotations

import pytest

from simllm.errors import SimllmError
from simllm.hwmodels.calibration import Calibration
from simllm.hwmodels.compression import GROUP_BYTES, SCALE_FLOPS, KvCompression
from simllm.hwmodels.device import load_device
from simllm.hwmodels.kernel_choice import KernelChoice
from simllm.hwmodels.layers import LayerOps
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.ops import gemm
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.profile import load_profile
from simllm.hwmodels.roofline_step import RooflineStepModel
from simllm.hwmodels.step import DecodeGroup, StepShape
from simllm.hwmodels.weights import rank_weight_bytes

LLAMA = load_model("llama-3.1-8b")
H200 = load_device("h200-sxm")


def precision(kv: str = "bf16", device: str = "h200-sxm", **compression: object) -> Precision:
    made = KvCompression(**compression)  # type: ignore[arg-type]
    return Precision.on(load_device(device), weight="bf16", activation="bf16", kv=kv, kv_compression=made)


def step_model(
    kv: str = "bf16", weight: str = "bf16", group: int | None = None, **compression: object
) -> RooflineStepModel:
    return RooflineStepModel(
        LLAMA,
        H200,
        weight_dtype=weight,
        activation_dtype="bf16",
        kv_dtype=kv,
        weight_group_size=group,
        kv_compression=KvCompression(**compression),  # type: ignore[arg-type]
    )


def attention_s(model: RooflineStepModel, count: int, context: int) -> float:
    group = DecodeGroup(1, count, count * context, context)
    cost = model.predict(StepShape(decodes=(group,), num_padded_tokens=count, num_sampled=count))
    return dict(zip(model.terms, cost.terms, strict=True))["attention_decode"]


@pytest.mark.parametrize(
    ("kv", "scale_bytes", "num_bytes"),
    [
        # 2 * 32 layers * 8 heads * 128 = 65,536 elements
        ("bf16", 0.0, 131_072),
        ("fp8", 0.0, 65_536),
        ("int4", GROUP_BYTES / 32, 65_536 * (0.5 + 0.125)),
        ("int8", GROUP_BYTES / 64, 65_536 * (1 + 0.0625)),
    ],
)
def test_a_cached_token_takes_its_elements_and_its_scales(
    kv: str, scale_bytes: float, num_bytes: float
) -> None:
    assert precision(kv, scale_bytes=scale_bytes).kv_bytes_per_token(LLAMA) == pytest.approx(num_bytes)


def test_a_cache_that_keeps_a_fifth_takes_a_fifth() -> None:
    sparse = precision(keep_share=0.2)
    assert sparse.kept_kv_bytes_per_token(LLAMA) == pytest.approx(0.2 * 131_072)
    with pytest.raises(SimllmError, match="keep_share"):
        KvCompression(keep_share=0)


@pytest.mark.parametrize(
    ("kv", "device", "flops"),
    [
        ("bf16", "h200-sxm", 0.0),
        ("fp8", "h200-sxm", 0.0),
        ("fp8", "a100-40gb", 1.0),
        ("int8", "h200-sxm", 1.0),
    ],
)
def test_a_cache_is_widened_where_the_units_cannot_multiply_it(kv: str, device: str, flops: float) -> None:
    assert precision(kv, device).kv_widen_flops == flops


def test_half_the_bytes_halve_decode_attention_and_scales_add_to_it() -> None:
    whole, half = attention_s(step_model(), 64, 4096), attention_s(step_model("fp8"), 64, 4096)
    assert half == pytest.approx(whole / 2, rel=0.01)
    grouped = attention_s(step_model("int8", scale_bytes=GROUP_BYTES / 32, scale_flops=SCALE_FLOPS), 64, 4096)
    assert grouped >= half * 1.124


def test_a_share_of_the_tokens_is_read_and_a_window_bounds_it() -> None:
    whole = attention_s(step_model(), 64, 4096)
    assert attention_s(step_model(keep_share=0.25), 64, 4096) == pytest.approx(whole / 4, rel=0.02)
    assert attention_s(step_model(window=1024), 64, 4096) == pytest.approx(
        attention_s(step_model(), 64, 1024)
    )
    # H2O reads and writes 8 bytes of scores per token and head beside 512 of keys and values.
    scored = attention_s(step_model(keep_share=0.25, keeps_scores=True), 64, 4096)
    assert scored == pytest.approx(whole / 4 * (1 + 8 / 512), rel=0.02)


@pytest.mark.parametrize("compression", [{"keep_share": 0.3}, {"window": 500}, {"scale_bytes": 0.1}])
def test_a_line_of_decodes_gives_what_its_steps_cost(compression: dict[str, object]) -> None:
    model = step_model("fp8", **compression)
    group = DecodeGroup(1, 4, 4 * 300, 300)
    line = model.decode_line(group, 400)
    for step in (0, line.num_steps - 1):
        decodes = DecodeGroup(1, 4, 4 * (300 + step), 300 + step)
        cost = model.predict(
            StepShape(decodes=(decodes,), num_padded_tokens=4, num_sampled=4, uses_cuda_graph=False)
        )
        assert line.base_s + step * line.slope_s == pytest.approx(cost.duration_s, rel=1e-9)


def test_int4_weights_have_a_scale_and_a_zero_point_per_group() -> None:
    # 128 weights: 64 bytes and 2.5 more, 4.156 bits each
    int4 = Precision.on(H200, weight="int4", activation="bf16", kv="bf16", weight_group_size=128)
    assert int4.weight_bytes * 8 == pytest.approx(4.15625)
    op = gemm(16, 4096, 4096, "bf16", weight_dtype="int4", weight_scale_bytes=2.5 / 128)
    assert op.hbm_bytes == pytest.approx(16 * 4096 * 4 + 4096 * 4096 * 4.15625 / 8)
    assert op.vector_flops == 2 * 4096 * 4096, "one tile of rows widens every weight once"
    assert gemm(16, 4096, 4096, "bf16").vector_flops == 0
    held = rank_weight_bytes(
        LLAMA, step_model().parallel, weight_dtype="int4", activation_dtype="bf16", scale_bytes=2.5 / 128
    )
    plain = rank_weight_bytes(LLAMA, step_model().parallel, weight_dtype="int4", activation_dtype="bf16")
    # 6.98 G weights in the layers
    assert held - plain == pytest.approx(6.98e9 * 2.5 / 128, rel=0.01)


def measured(kernels: KernelChoice, kv: str) -> RooflineStepModel:
    ops = load_profile("h200-sxm").ops
    assert ops is not None
    return RooflineStepModel(
        LLAMA,
        H200,
        weight_dtype="bf16",
        activation_dtype="bf16",
        kv_dtype=kv,
        calibration=Calibration(ops, kernels),
    )


def test_an_engine_that_multiplies_in_fp8_reads_its_cache_at_54_percent_of_the_slope() -> None:
    engine = KernelChoice.named("vllm", {"attention_decode": 1.2})

    def slope_s(kv: str, kernels: KernelChoice) -> float:
        model = measured(kernels, kv)
        return attention_s(model, 64, 8192) - attention_s(model, 64, 4096)

    assert slope_s("fp8", engine) == pytest.approx(0.54 * slope_s("bf16", engine), rel=0.03)
    # Ours widens fp8 in registers, which takes longer than the bytes saved.
    ours = KernelChoice.named("triton")
    assert slope_s("fp8", ours) > 0.7 * slope_s("bf16", ours)


def test_fp8_products_narrow_their_inputs_in_two_passes_and_fp8_attention_its_queries() -> None:
    def quantised(weight: str, kv: str) -> dict[str, int]:
        precision = Precision.on(H200, weight=weight, activation="bf16", kv=kv)
        launches = LayerOps(LLAMA, ParallelSpec(), precision).linear(16)["elementwise"]
        kinds = [(launch.alternatives[0].kind, launch.repeats) for launch in launches]
        return {
            name: sum(repeats for kind, repeats in kinds if kind == name)
            for name in ("quantize_max", "quantize_scaled")
        }

    # Inputs of QKV, output projection, gate and up, and down, in each of 32 layers
    assert quantised("bf16", "bf16") == {"quantize_max": 0, "quantize_scaled": 0}
    assert quantised("fp8", "bf16") == {"quantize_max": 128, "quantize_scaled": 128}
    assert quantised("fp8", "fp8") == {"quantize_max": 128, "quantize_scaled": 160}


def test_int4_products_are_measured_as_ours_and_marlin_s_are_those_of_the_roofline() -> None:
    def step_s(kernels: KernelChoice) -> float:
        ops = load_profile("h200-sxm").ops
        assert ops is not None
        model = RooflineStepModel(
            LLAMA,
            H200,
            weight_dtype="int4",
            activation_dtype="bf16",
            kv_dtype="bf16",
            weight_group_size=128,
            calibration=Calibration(ops, kernels),
        )
        return model.decode_line(DecodeGroup(1, 1, 100, 100), 1).base_terms[model.terms.index("mlp_gemm")]

    # 32 layers of 3 x 4096 x 14336 weights at 4.16 bits and 85 % of 4.8 TB/s
    marlin_s = 32 * 3 * 4096 * 14336 * 4.15625 / 8 / (0.85 * 4.8e12)
    assert step_s(KernelChoice.named("vllm")) == pytest.approx(marlin_s, rel=0.03)
    assert step_s(KernelChoice.named("triton")) > 3 * marlin_s, "ours unpacks slowly, as measured"
