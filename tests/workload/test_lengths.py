from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from simllm.errors import TraceError
from simllm.sim.workload.length_spec import LengthSpec
from simllm.sim.workload.lengths import sample_lengths
from simllm.sim.workload.streams import stream

SHIPPED = Path(__file__).parents[2] / "scenarios"


def draw(size: int, base_dir: Path = SHIPPED, **fields: object) -> np.ndarray:
    spec = TypeAdapter(LengthSpec).validate_python(fields)
    return sample_lengths(spec, stream(5, "prompt_tokens"), size, base_dir=base_dir)


def test_a_fixed_length_is_that_length() -> None:
    assert draw(3, kind="fixed", tokens=512).tolist() == [512, 512, 512]


def test_uniform_lengths_include_both_ends_and_have_their_moments() -> None:
    lengths = draw(100_000, kind="uniform", min_tokens=3, max_tokens=12)
    assert set(lengths.tolist()) == set(range(3, 13))
    # Mean (3 + 12) / 2, variance (10^2 - 1) / 12 = 8.25.
    assert lengths.mean() == pytest.approx(7.5, rel=0.01)
    assert lengths.var() == pytest.approx(8.25, rel=0.02)


def test_a_lognormal_by_median_has_its_median_and_mean() -> None:
    lengths = draw(200_000, kind="lognormal", median_tokens=1000.0, sigma=0.5)
    assert np.median(lengths) == pytest.approx(1000, rel=0.01)
    # Mean exp(mu + sigma^2 / 2) = 1000 e^0.125.
    assert lengths.mean() == pytest.approx(1000 * math.exp(0.125), rel=0.01)


def test_a_lognormal_by_mean_has_its_mean_and_deviation() -> None:
    lengths = draw(400_000, kind="lognormal", mean_tokens=800.0, std_tokens=600.0)
    assert lengths.mean() == pytest.approx(800, rel=0.01)
    assert lengths.std() == pytest.approx(600, rel=0.03)


def test_a_lognormal_is_clipped_and_never_empty() -> None:
    lengths = draw(10_000, kind="lognormal", median_tokens=10.0, sigma=3.0, max_tokens=50)
    assert (lengths.min(), lengths.max()) == (1, 50)


def test_zipf_lengths_have_the_frequencies_of_their_ranks() -> None:
    lengths = draw(120_000, kind="zipf", exponent=1.0, min_tokens=10, max_tokens=12)
    # Weights 1, 1/2, 1/3, in all 11/6: shares 6/11, 3/11, 2/11.
    shares = np.bincount(lengths, minlength=13)[10:] / len(lengths)
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.005)


def test_a_histogram_of_values_has_the_shares_of_its_weights() -> None:
    lengths = draw(100_000, kind="histogram", values_tokens=[7, 3, 9], weights=[1, 3, 0])
    shares = np.bincount(lengths, minlength=10) / len(lengths)
    assert (shares[3], shares[7], shares[9]) == pytest.approx((0.75, 0.25, 0.0), abs=0.005)


def test_a_histogram_of_bins_spreads_each_weight_evenly() -> None:
    lengths = draw(120_000, kind="histogram", edges_tokens=[1, 3, 5], weights=[3, 1])
    # 3/4 over {1, 2, 3}, 1/4 over {4, 5}.
    shares = np.bincount(lengths, minlength=6)[1:] / len(lengths)
    assert shares == pytest.approx([0.25, 0.25, 0.25, 0.125, 0.125], abs=0.005)


def test_edges_without_weights_are_quantiles() -> None:
    lengths = draw(50_000, kind="histogram", edges_tokens=[10, 20, 1000])
    assert np.mean(lengths <= 20) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("column", "mean", "std"), [("prompt_tokens", 1155, 1109), ("output_tokens", 211, 163)]
)
def test_the_shipped_azure_lengths_have_the_moments_of_the_trace(
    column: str, mean: float, std: float
) -> None:
    lengths = draw(200_000, kind="histogram", path="data/azure-conversation.yaml", column=column)
    assert lengths.mean() == pytest.approx(mean, rel=0.02)
    assert lengths.std() == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("prompt_token: {}", "has no column 'prompt_tokens'; did you mean 'prompt_token'?"),
        ("- 1", "has no column 'prompt_tokens'"),
        ("a: [", "is no YAML"),
        (
            "prompt_tokens: {kind: histogram, edges_tokens: [5, 5]}",
            "prompt_tokens: Value error, edges_tokens must",
        ),
        (
            "prompt_tokens: {kind: histogram, values_tokens: [0]}",
            "prompt_tokens.values_tokens.0: Input should be",
        ),
    ],
)
def test_a_bad_histogram_file_is_named(
    put: Callable[[str, str], str], tmp_path: Path, text: str, what: str
) -> None:
    path = put("lengths.yaml", text)
    with pytest.raises(TraceError) as caught:
        draw(1, tmp_path, kind="histogram", path=path, column="prompt_tokens")
    assert str(caught.value).startswith(f"lengths.yaml: {what}")


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"kind": "uniform", "min_tokens": 9, "max_tokens": 8}, "min_tokens (9) exceeds max_tokens (8)"),
        ({"kind": "zipf", "exponent": 1, "min_tokens": 9, "max_tokens": 8}, "exceeds"),
        ({"kind": "lognormal", "median_tokens": 9}, "give either median_tokens and sigma"),
        ({"kind": "lognormal", "median_tokens": 9, "sigma": 1, "mean_tokens": 9}, "give either"),
        ({"kind": "histogram"}, "give one of"),
        ({"kind": "histogram", "values_tokens": [1], "weights": [1, 2]}, "there must be 1 weights, not 2"),
        ({"kind": "histogram", "edges_tokens": [1, 2], "weights": [0]}, "must be positive"),
        ({"kind": "histogram", "path": "a.yaml"}, "path and column go together"),
    ],
)
def test_contradicting_parameters_are_refused(fields: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(LengthSpec).validate_python(fields)
    assert what in str(caught.value)
