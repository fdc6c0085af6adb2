"""Writes the tables of docs/profile.md from the shipped profile; a test compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simllm.hwmodels.op_form import Coefficient
from simllm.hwmodels.op_model import FORMS
from simllm.hwmodels.profile import HardwareProfile, load_profile

PAGE = Path(__file__).resolve().parent / "profile.md"
PROFILE = "h200-sxm"
NAMES = ("coefficients", "ladder", "errors")
MARKS = {name: (f"<!-- {name}: docs/generate_profile.py -->", f"<!-- end of {name} -->") for name in NAMES}
_UNITS = {"B/s": (1e12, "TB/s"), "s": (1e-6, "us")}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def coefficients() -> str:
    """Returns what every coefficient of every form means."""
    parts = []
    for form in FORMS.values():
        rows = [[f"`{one.name}`", one.unit, _meaning(one)] for one in form.coefficients]
        parts += [f"`{form.name}`:", _table(["coefficient", "unit", "meaning"], rows)]
    return "\n\n".join(parts)


def _meaning(one: Coefficient) -> str:
    return one.meaning if one.absent is not None else f"{one.meaning} (always there)"


def ladder(profile: HardwareProfile) -> str:
    """Returns the ladder, rung by rung, and the efficiencies that follow."""
    rows = []
    for name, rung in profile.ladder.items():
        factor, unit = _UNITS[rung.unit]
        numbers = [f"{number / factor:.3g}" for number in (rung.value, rung.low, rung.high)]
        rows.append([f"`{name}`", *numbers, unit, str(rung.num_samples)])
    shares = [
        [f"`{name}`", f"{one.value:.3f}", "estimated" if one.estimated else "measured", one.source]
        for name, one in profile.coefficients.items()
    ]
    told = _table(["rung", "median", "least", "most", "unit", "samples"], rows)
    return f"{told}\n\n{_table(['efficiency', 'value', '', 'source'], shares)}"


def errors(profile: HardwareProfile) -> str:
    """Returns the errors of every fit on shapes that it did not see."""
    rows = [
        [
            f"`{entry.op}`", f"`{entry.implementation}`", entry.dtype, str(entry.held_out.num_samples),
            *(f"{error:.1%}" for error in (entry.held_out.median, entry.held_out.p90, entry.held_out.worst)),
            f"{entry.held_out.num_groups} x {entry.held_out.grouped_by}",
        ]
        for entry in (profile.ops.entries if profile.ops else ())
    ]  # fmt: skip
    host = profile.host
    versions = f"torch {host['torch']}, Triton {host['triton']}"
    told = f"{host['name']}, {host['power_limit']}, {host['date']}, {versions}:"
    head = ["op", "implementation", "dtype", "samples", "median", "p90", "worst", "left out"]
    return f"{told}\n\n{_table(head, rows)}"


def page(text: str) -> str:
    """Returns the page with its tables made anew."""
    profile = load_profile(PROFILE)
    tables = {"coefficients": coefficients(), "ladder": ladder(profile), "errors": errors(profile)}
    for name, (begin, end) in MARKS.items():
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{tables[name]}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
