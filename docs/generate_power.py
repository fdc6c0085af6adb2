"""Writes the tables of docs/power.md from the samples that ship with a profile; a test compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simllm.calibrate.power_command import half_fallen_s
from simllm.calibrate.power_fit import full_clock_ms, play
from simllm.calibrate.power_samples import PowerSample, read_power_samples
from simllm.hwmodels.power import PowerLimit
from simllm.hwmodels.profile_file import read_calibrated
from simllm.hwmodels.profile_schema import PowerEntry

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "power.md"
PROFILE = DOCS.parent / "hwmodels" / "profiles" / "h200-sxm.yaml"
SAMPLES = PROFILE.with_name("h200-sxm.power.samples.parquet")
BEGIN, END = "<!-- figures: docs/generate_power.py -->", "<!-- end of figures -->"

# What each sequence does, over and over.
SEQUENCES = {
    "sustained": "prefill of 2,048 tokens alone",
    "p512": "prefill of 512 tokens alone",
    "burst8": "8 x prefill of 2,048, 250 x decode of 16",
    "closed64": "32 x prefill of 2,048, 200 x decode of 64",
    "mix75": "3 x prefill of 2,048, 6 x decode of 64",
    "mix50": "1 x prefill of 2,048, 6 x decode of 64",
    "mix50b": "2 x prefill of 512, 3 x decode of 64",
    "mix25": "1 x prefill of 2,048, 19 x decode of 64",
}


def figures() -> str:
    """Returns all figures of the page."""
    samples, _ = read_power_samples(SAMPLES)
    entry = read_calibrated(PROFILE).power
    if entry is None:
        raise SystemExit(f"{PROFILE}: has no power section; `simllm calibrate power` writes it")
    errors = entry.held_out
    return "\n\n".join(
        (
            f"{entry.source}; {len(samples):,} steps. The constants:",
            _constants(entry),
            f"On sequences left out of the fit ({errors.num_sequences}, each in turn), the median error is "
            f"{errors.step:.1%} of a step and {errors.sequence:.1%} of a whole sequence.",
            "Mean times of steps in ms, measured and from the fit of all sequences; at full clock, they are "
            + _full_clock(samples),
            _sequences(samples, entry.limit()),
        )
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _constants(entry: PowerEntry) -> str:
    limit = entry.limit()
    half_ms = [half_fallen_s(limit, room) * 1e3 for room in (limit.idle_headroom, limit.busy_headroom)]
    rows = (
        (
            "`full_clock_ratio`",
            f"{limit.full_clock_ratio:.3f}",
            f"settled, products take {limit.slowdown:.1%} longer",
        ),
        ("`other_slowdown`", f"{limit.other_slowdown:.3f}", "and everything else this much"),
        ("`reaction_s`", f"{limit.reaction_s:.4f}", "time constant of the clock"),
        (
            "`idle_headroom`",
            f"{limit.idle_headroom:.3f}",
            f"half fallen {half_ms[0]:.0f} ms after a pause's end",
        ),
        (
            "`busy_headroom`",
            f"{limit.busy_headroom:.3f}",
            f"half fallen {half_ms[1]:.0f} ms after decodes' end",
        ),
    )
    return _table(("constant", "value", "meaning"), rows)


def _full_clock(samples: Sequence[PowerSample]) -> str:
    times = full_clock_ms(samples)
    known = {sample.graph: sample for sample in samples}
    told = [
        f"{times[name]:.2f} ({known[name].kind} of {known[name].num_tokens:,})"
        for name in ("p2048", "p512", "d16", "d64")
    ]
    return ", ".join(told) + "."


def _sequences(samples: Sequence[PowerSample], limit: PowerLimit) -> str:
    fitted = play(limit, samples)
    rows = []
    for name, what in SEQUENCES.items():
        steps = [sample for sample in samples if sample.sequence == name]
        measured, modelled = np.array([step.time_ms for step in steps]), np.array(fitted[name]) * 1e3
        is_prefill = np.array([step.kind == "prefill" for step in steps])
        cells = [f"{modelled.sum() / measured.sum() - 1:+.1%}".replace("-0.0%", "+0.0%")]
        for chosen in (~is_prefill, is_prefill):
            means = (measured[chosen].mean(), modelled[chosen].mean()) if chosen.any() else ()
            cells = [*(f"{mean:.2f}" for mean in means), *[""] * (2 - len(means)), *cells]
        rows.append([what, *cells])
    head = ("again and again", "prefill", "fit", "decode", "fit", "sum")
    return _table(head, rows)


def page(text: str) -> str:
    """Returns the page with its figures made anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
