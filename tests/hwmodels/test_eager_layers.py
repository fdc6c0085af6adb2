"""What plain PyTorch launches beyond fused kernels, counted by hand for one layer of Llama-2-7B."""

from __future__ import annotations

import pytest

from simllm.hwmodels.eager_layers import unfused_launches
from simllm.hwmodels.layers import LayerOps
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec, rank_shapes
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.profile import load_profile

LLAMA, OPT = load_model("llama-2-7b"), load_model("opt-13b")
ONE_GPU = ParallelSpec()


def num_kernels(model, *, is_eager: bool) -> int:
    device = load_profile("a100-80gb").device
    precision = Precision.on(device, weight="fp16", activation="fp16", kv="fp16")
    launches = LayerOps(model, ONE_GPU, precision, is_eager=is_eager).linear(8)
    return sum(
        launch.repeats * launch.alternatives[0].num_kernels for part in launches.values() for launch in part
    )


def test_a_layer_of_llama_has_32_launches_more() -> None:
    # Two norms of 9 for 1, heads merged (1), Q, K, V apart (2), rotary embedding 12 for 1, SiLU and product 2
    # for 1, gate and up apart (1): 16 + 1 + 2 + 11 + 1 + 1 = 32.
    more = num_kernels(LLAMA, is_eager=True) - num_kernels(LLAMA, is_eager=False)
    assert more == 32 * LLAMA.num_layers


def test_a_layer_of_opt_has_5_launches_more_for_its_norms_are_fused() -> None:
    # Two additions of residuals (2), heads merged (1), Q, K, V apart (2); no rotary embedding, no gate.
    more = num_kernels(OPT, is_eager=True) - num_kernels(OPT, is_eager=False)
    assert more == 5 * OPT.num_layers


def test_their_bytes_are_passes_over_the_activations() -> None:
    # Per layer and token: 2 norms x 34 B x 4,096, merged heads 4 B x 4,096, Q and K 16 B x 8,192,
    # SiLU 4 B x 11,008: 470,016 B.
    launches = unfused_launches(LLAMA, rank_shapes(LLAMA, ONE_GPU), 10, "fp16")
    total = sum(launch.repeats * launch.alternatives[0].hbm_bytes for launch in launches)
    assert total == pytest.approx(10 * 32 * 470_016)
    wide = unfused_launches(LLAMA, rank_shapes(LLAMA, ONE_GPU), 10, "fp32")
    assert sum(one.repeats * one.alternatives[0].hbm_bytes for one in wide) == pytest.approx(2 * total)
