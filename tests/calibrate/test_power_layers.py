"""The steps that are timed compute what a transformer does: small ones, on Triton's interpreter or a GPU."""

# ruff: noqa: E402 (what follows can be imported only where torch is)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="steps run on torch")
pytest.importorskip("triton", reason="and on our kernels")

from simllm.calibrate.power_layers import Sizes, Transformer
from simllm.calibrate.power_measure import Played, rows_of
from simllm.calibrate.power_plan import Turn

SIZES = Sizes(
    hidden=64,
    num_q_heads=4,
    num_kv_heads=2,
    head_dim=32,
    intermediate=96,
    vocab=40,
    num_layers=3,
    num_weights=2,
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.float16 if torch.cuda.is_available() else torch.float32


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(SIZES, DEVICE, DTYPE)


def test_a_prefill_gives_the_logits_of_a_row_for_each_prompt(model):
    logits = model.prefill(32, 16)()
    assert logits.shape == (2, 40)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def test_a_decode_gives_a_token_for_each_sequence(model):
    tokens = model.decode(3, 20)()
    assert tokens.shape == (3,)
    assert ((tokens >= 0) & (tokens < 40)).all()


def test_products_alone_end_in_the_same_product(model):
    assert model.products(32, 16)().shape == (2, 40)


def test_every_launch_of_a_step_gives_the_same(model):
    step = model.prefill(16, 16)
    assert torch.equal(step(), step())


def test_rows_carry_what_ran_and_what_the_driver_told_at_its_end():
    turns = (Turn("p512"), Turn("d16", 0.1))
    played = (Played(1.0, 0.02, 0.0), Played(1.12, 0.005, 0.1))
    told = {1.02: (900.0, 1980.0), 1.125: (500.0, 1965.0)}
    rows = rows_of("one", turns, played, {"p512": 0.9, "d16": 0.0}, lambda at: told[round(at, 3)])
    assert [(row.graph, row.kind, row.num_tokens, row.place) for row in rows] == [
        ("p512", "prefill", 512, 0),
        ("d16", "decode", 16, 1),
    ]
    assert [row.time_ms for row in rows] == pytest.approx([20.0, 5.0])
    assert [(row.power_w, row.clock_mhz, row.pause_s) for row in rows] == [(900, 1980, 0), (500, 1965, 0.1)]
