"""Rows over experts: shares that add up, and tiles counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels.expert_load import ExpertLoad, chosen_shares
from simllm.hwmodels.op_point import OpPoint

MIXTURE = OpPoint("grouped_gemm", "triton", "bf16", m=64, n=1024, k=2048, num_experts=8, top_k=2)


def test_a_dense_product_has_no_experts():
    load = ExpertLoad.of(OpPoint("gemm", "cublas", "bf16", m=17, n=8, k=8))
    assert (load.is_dense, load.num_rows, load.tile_rows) == (True, 17, 17)


def test_every_expert_gets_its_rows_and_a_part_of_a_tile():
    # 64 tokens choose 2 of 8 experts: 128 rows, 16 an expert; tiles far larger than that are one each.
    load = ExpertLoad.of(MIXTURE)
    assert (load.num_rows, load.tile_rows) == (128, 16)
    assert load.num_tiles(10_000) == pytest.approx(8, rel=1e-6)
    # Tiles of one row are as many as there are rows.
    assert load.num_tiles(1) == pytest.approx(128, rel=0.01)


def test_one_token_touches_as_many_experts_as_it_chooses():
    one = OpPoint("grouped_gemm", "triton", "bf16", m=1, n=8, k=8, num_experts=64, top_k=6)
    assert ExpertLoad.of(one).num_tiles(16) == pytest.approx(6)


@given(st.integers(2, 256), st.integers(1, 8), st.floats(0, 2))
def test_shares_of_a_token_s_choices_add_up_to_their_number(num_experts, top_k, skew):
    shares = chosen_shares(num_experts, top_k, skew)
    assert shares.sum() == pytest.approx(min(top_k, num_experts), rel=1e-6)
    assert (shares <= 1).all() and (shares[:-1] >= shares[1:] - 1e-12).all()


def test_skew_touches_fewer_experts():
    few = ExpertLoad.of(
        OpPoint("grouped_gemm", "", "bf16", m=32, n=8, k=8, num_experts=128, top_k=8, skew=1.0)
    )
    assert few.num_unread_experts > 10
    assert ExpertLoad.of(MIXTURE).num_unread_experts == pytest.approx(0, abs=1e-9)
