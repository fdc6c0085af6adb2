"""The fit recovers known coefficients from synthesised samples, and the same samples give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.calibrate.fit import by_key, fit_samples, predict_s, round_significant
from simllm.calibrate.fitted_file import fit_all, fitted_text
from simllm.calibrate.plan import streams
from simllm.calibrate.samples import Sample
from simllm.calibrate.validate import group_of, held_out, held_out_ratios
from simllm.errors import CalibrationError
from simllm.hwmodels.device import load_device
from simllm.hwmodels.op_model import form_of

NOISE = 0.01
DEVICE = load_device("h200-sxm")


def synthesise(op: str, implementation: str, truth: dict[str, float]) -> list[Sample]:
    """Samples of one stream of the plan, with the times of the op's form under `truth` and 1 % noise."""
    stream = next(s for s in streams() if (s.op, s.implementation) == (op, implementation))
    points = list(stream.points())
    form = form_of(op)
    values = {coefficient.name: coefficient.initial for coefficient in form.coefficients} | truth
    times = form.seconds(form.features(points, DEVICE), values)
    noise = np.random.default_rng(7).normal(1.0, NOISE, len(points))
    return [
        Sample(point, time * factor * 1e6, 0.005, 20, False, 1.0, 1.0)
        for point, time, factor in zip(points, times, noise, strict=True)
    ]


CASES = [
    ("gemm", "cublas", {"matrix_flops_per_s": 6.9e14, "hbm_bytes_per_s": 4.2e12, "launch_s": 2.5e-6}),
    (
        "attention_prefill",
        "triton",
        {"matrix_flops_per_s": 8e14, "exponentials_per_s": 3e12, "cta_share": 0.7},
    ),
    ("attention_decode", "triton", {"hbm_bytes_per_s": 3.9e12, "key_s": 5e-8, "cta_s": 3e-7}),
    ("rms_norm", "triton", {"hbm_bytes_per_s": 3.5e12, "launch_s": 2e-6, "row_s": 1e-6}),
]


@pytest.mark.parametrize(("op", "implementation", "truth"), CASES)
def test_coefficients_that_made_the_samples_are_recovered(op, implementation, truth):
    fit = fit_samples(synthesise(op, implementation, truth), DEVICE)
    for name, value in truth.items():
        assert fit.values[name] == pytest.approx(value, rel=0.06), name


@pytest.mark.parametrize(("op", "implementation", "truth"), CASES)
def test_held_out_errors_of_a_true_model_are_its_noise(op, implementation, truth):
    errors = held_out(synthesise(op, implementation, truth), DEVICE)
    # Half of all normal errors lie below 0.674 sigma, nine in ten below 1.645.
    assert errors.median == pytest.approx(0.674 * NOISE, abs=0.004)
    assert errors.p90 < 2.2 * 1.645 * NOISE


def test_an_interval_holds_its_coefficient_and_stays_within_the_bounds_of_the_form():
    samples = synthesise("gemm", "cublas", {})
    fit = fit_samples(samples, DEVICE)
    bounds = {one.name: one.bounds(DEVICE, "bf16") for one in form_of("gemm").coefficients}
    for name, fitted in fit.coefficients.items():
        low, high = bounds[name]
        assert low * 0.999 <= fitted.low <= fitted.value <= fitted.high <= high * 1.001


def test_a_coefficient_that_the_samples_do_not_show_is_left_out():
    # No product of the plan's rows runs for seconds, and none of cuBLAS's has weights to expand.
    fit = fit_samples(synthesise("gemm", "cublas", {}), DEVICE)
    assert not {"heat", "expanded_per_s"} & set(fit.coefficients)
    assert {"launch_s", "matrix_flops_per_s", "hbm_bytes_per_s", "overlap"} <= set(fit.coefficients)


def test_a_term_that_made_no_difference_to_the_samples_makes_none_to_the_fit():
    # Rows that cost nothing by themselves: the fit has no coefficient for them, and predicts all the same.
    samples = synthesise("rms_norm", "triton", {"row_s": 1e-12, "exchange_s": 1e-12})
    fit = fit_samples(samples, DEVICE)
    assert "row_s" not in fit.coefficients or fit.values["row_s"] < 5e-8
    predicted = predict_s(fit, [sample.point for sample in samples], DEVICE)
    assert np.median(np.abs(predicted * 1e6 / [sample.time_us for sample in samples] - 1)) < NOISE


def test_one_wild_sample_hardly_moves_a_fit():
    samples = synthesise("rms_norm", "triton", {"hbm_bytes_per_s": 3.5e12})
    before = fit_samples(samples, DEVICE).values
    wild = [*samples[:-1], Sample(samples[-1].point, 40 * samples[-1].time_us, 0.0, 20, False, 1.0, 1.0)]
    assert fit_samples(wild, DEVICE).values["hbm_bytes_per_s"] == pytest.approx(
        before["hbm_bytes_per_s"], rel=0.05
    )


def test_the_same_samples_in_any_order_give_the_same_bytes():
    samples = synthesise("rms_norm", "triton", {}) + synthesise("attention_decode", "sdpa-flash", {})
    texts = [
        fitted_text("a", DEVICE, {"name": "GPU"}, fit_all(rows, DEVICE))
        for rows in (samples, list(reversed(samples)))
    ]
    assert texts[0] == texts[1]


def test_noisy_and_failed_samples_are_left_out():
    samples = synthesise("rms_norm", "triton", {})
    bad = [Sample(samples[0].point, 1e6, 0.5, 20, True, 1.0, 1.0)]
    failed = [Sample(samples[1].point, 0.0, 0.0, 0, False, 1.0, 1.0, error="out of memory")]
    (group,) = by_key(samples + bad + failed).values()
    assert len(group) == len(samples) + 1
    assert fit_samples(group, DEVICE).num_samples == len(samples)


def test_too_few_samples_are_an_error_that_says_how_many_are_needed():
    with pytest.raises(CalibrationError, match="3 samples, fitting needs"):
        fit_samples(synthesise("rms_norm", "triton", {})[:3], DEVICE)


def test_a_held_out_sample_is_predicted_by_a_fit_that_saw_nothing_of_its_group():
    samples = synthesise("rms_norm", "triton", {})
    group = group_of(samples[0].point)
    doubled = [
        Sample(s.point, 2 * s.time_us if group_of(s.point) == group else s.time_us, 0.0, 20, False, 1.0, 1.0)
        for s in samples
    ]
    ratios = held_out_ratios(doubled, DEVICE)
    inside = [ratio for ratio, s in zip(ratios, samples, strict=True) if group_of(s.point) == group]
    assert np.median(inside) == pytest.approx(0.5, rel=0.05)


def test_predictions_of_a_fit_are_those_of_its_form():
    samples = synthesise("attention_prefill", "triton", {})
    fit = fit_samples(samples, DEVICE)
    points = [sample.point for sample in samples]
    form = form_of("attention_prefill")
    assert (
        predict_s(fit, points, DEVICE).tolist()
        == form.seconds(form.features(points, DEVICE), fit.values).tolist()
    )


def test_values_are_rounded_to_six_significant_digits():
    assert round_significant(123456789.0) == 123457000.0
    assert round_significant(1.2345678e-6) == 1.23457e-6
