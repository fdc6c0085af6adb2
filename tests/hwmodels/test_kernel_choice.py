"""Whose kernels run an operation: presets, and choices by op."""

from __future__ import annotations

import pytest

from simllm.errors import ProfileError
from simllm.hwmodels.kernel_choice import IMPLEMENTATIONS, PRESETS, KernelChoice
from simllm.hwmodels.op_model import FORM_OF_OP


def test_triton_is_ours_for_everything_without_any_ratio():
    choice = KernelChoice.parse("triton", {"attention_decode": 1.1})
    assert {choice.implementation(op) for op in FORM_OF_OP} == {"triton"}
    assert {choice.ratio(op) for op in FORM_OF_OP} == {1.0}


def test_vllm_takes_libraries_where_it_does_and_ours_times_its_ratio_elsewhere():
    choice = KernelChoice.parse("vllm", {"attention_decode": 1.1})
    assert choice.implementation("gemm") == "cublas"
    assert choice.implementation("attention_prefill") == "sdpa-cudnn"
    assert choice.implementation("rms_norm") == "triton"
    assert (choice.implementation("attention_decode"), choice.ratio("attention_decode")) == ("triton", 1.1)
    assert choice.ratio("gemm") == 1.0


def test_a_choice_by_op_leaves_the_rest_to_us():
    choice = KernelChoice.parse("gemm=cublas, rms_norm=torch", {"attention_decode": 1.1})
    assert (choice.implementation("gemm"), choice.implementation("rms_norm")) == ("cublas", "torch")
    assert (choice.implementation("softmax"), choice.ratio("attention_decode")) == ("triton", 1.0)


def test_presets_name_ops_and_implementations_that_there_are():
    for preset in PRESETS.values():
        assert set(preset) <= set(FORM_OF_OP)
        assert set(preset.values()) <= set(IMPLEMENTATIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vlm", "kernels 'vlm' are unknown; did you mean 'vllm'"),
        ("gem=cublas", "'gem' is no operation; did you mean 'gemm'"),
        ("gemm=cublass", "'cublass' is no implementation; did you mean 'cublas'"),
        ("gemm=", "'' is no implementation; one of triton, cublas"),
    ],
)
def test_a_name_that_there_is_not_is_answered_with_the_nearest(text, message):
    with pytest.raises(ProfileError, match=message):
        KernelChoice.parse(text)
