"""Writes the tables of docs/engine-profile.md from the shipped engine profile; a test compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from simllm.hwmodels.engine_profile import EngineConstant, EngineProfile, load_engine_profile
from simllm.sim.validate.engine_fit import BOUNDS

PAGE = Path(__file__).resolve().parent / "engine-profile.md"
PROFILE = "vllm-0.22-h200-sxm"
BEGIN, END = "<!-- figures: docs/generate_engine_profile.py -->", "<!-- end of figures -->"
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


def _percent(error: float) -> str:
    return f"{round(error, 3) + 0.0:+.1%}"  # no negative zero


def page(text: str) -> str:
    """Returns the page with its figures made anew."""
    profile = load_engine_profile(PROFILE)
    told = (
        f"`{profile.name}`: {profile.engine} {profile.version} on `{profile.device}`, fitted on the hardware "
        f"profile `{profile.profile}`."
    )
    before, _, rest = text.partition(BEGIN)
    head = "How the busy time of the runs that it was fitted to comes out (step grids: long prompts):"
    parts = [BEGIN, told, constants(profile), head, runs(profile), END]
    return before + "\n\n".join(parts) + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
