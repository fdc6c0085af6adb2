"""Writes the tables of docs/engine-profile.md from the shipped engine profile; a test compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from simllm.hwmodels.engine_profile import EngineProfile, load_engine_profile
from simllm.hwmodels.fitted import EngineConstant
from simllm.hwmodels.front_end_profile import FrontEndConstant, FrontEndProfile, FrontEndRun
from simllm.sim.validate.engine_fit import BOUNDS

PAGE = Path(__file__).resolve().parent / "engine-profile.md"
PROFILE = "vllm-0.22-h200-sxm"
BEGIN, END = "<!-- figures: docs/generate_engine_profile.py -->", "<!-- end of figures -->"
FRONT_BEGIN, FRONT_END = "<!-- front end: docs/generate_engine_profile.py -->", "<!-- end of front end -->"
# What each of the front end's constants was told by.
OBSERVED: Mapping[str, str] = {
    **dict.fromkeys(("request_s", "prompt_token_s", "in_s"), "requests"),
    "hold_s": "bursts",
    **dict.fromkeys(("out_s", "token_s", "first_token_s", "last_token_s"), "tokens"),
    "turnaround_s": "gaps",
}
# Times by the unit that suits them; what is not here is a ratio.
UNITS: Mapping[str, tuple[float, str]] = {
    "step_s": (1e-6, "us"),
    "eager_launch_s": (1e-6, "us"),
    "eager_moe_layer_s": (1e-6, "us"),
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def constants(profile: EngineProfile) -> str:
    """Returns value, interval and bounds of every constant."""
    rows = [_constant(name, constant) for name, constant in profile.constants.items()]
    return _table(["constant", "value", "95 % interval", "unit", "bounds of the fit"], rows)


def _constant(name: str, constant: EngineConstant) -> list[str]:
    factor, unit = UNITS.get(name, (1.0, "ratio"))
    value, low, high, least, most = (
        f"{number / factor:.3g}" for number in (constant.value, constant.low, constant.high, *BOUNDS[name])
    )
    return [f"`{name}`", value, f"{low} to {high}", unit, f"{least} to {most}"]


def runs(profile: EngineProfile) -> str:
    """Returns what each run was compared on, and how its busy time comes out."""
    rows = [[f"`{run.run}`", f"{run.num_steps:,}", _percent(run.busy_error)] for run in profile.runs]
    return _table(["run", "steps in its comparisons", "predicted / measured - 1"], rows)


def front_end(profile: FrontEndProfile) -> str:
    """Returns value, interval and observations of the front end's constants, and what they make of runs."""
    rows = [_front_end_constant(name, found) for name, found in profile.constants.items().items()]
    constants_table = _table(["constant", "value", "95 % interval", "unit", "observations"], rows)
    head = ["run", "requests", "way in missed by", "first tokens' way out", "last tokens' way out"]
    runs_table = _table(head, [_front_end_run(run) for run in profile.runs])
    told = (
        "What the constants make of each run, in ms (way in: how far from the recorded interval, on\n"
        "average; way out: predicted - measured mean):"
    )
    return f"{constants_table}\n\n{told}\n\n{runs_table}"


def _front_end_constant(name: str, constant: FrontEndConstant) -> list[str]:
    value, low, high = (f"{time_s * 1e6:.3g}" for time_s in (constant.value, constant.low, constant.high))
    return [f"`{name}`", value, f"{low} to {high}", "us", f"{constant.num_observations:,} {OBSERVED[name]}"]


def _front_end_run(run: FrontEndRun) -> list[str]:
    times_s = (run.first_token_error_s, run.last_token_error_s)
    errors = ("-" if time_s is None else f"{time_s * 1e3:+.2f}" for time_s in times_s)
    return [f"`{run.run}`", f"{run.num_requests:,}", f"{run.way_in_miss_s * 1e3:.3f}", *errors]


def _percent(error: float) -> str:
    return f"{round(error, 3) + 0.0:+.1%}"  # no negative zero


def page(text: str) -> str:
    """Returns the page with its figures made anew."""
    profile = load_engine_profile(PROFILE)
    told = (
        f"`{profile.name}`: {profile.engine} {profile.version} on `{profile.device}`, fitted on the hardware "
        f"profile `{profile.profile}`."
    )
    head = "How the busy time of the runs that it was fitted to comes out (step grids: long prompts):"
    text = _replaced(text, BEGIN, [told, constants(profile), head, runs(profile)], END)
    found = profile.front_end
    return text if found is None else _replaced(text, FRONT_BEGIN, [front_end(found)], FRONT_END)


def _replaced(text: str, begin: str, parts: Sequence[str], end: str) -> str:
    """Returns the text with what stands between two marks made anew."""
    before, _, rest = text.partition(begin)
    return before + "\n\n".join([begin, *parts, end]) + rest.partition(end)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
