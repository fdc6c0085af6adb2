"""What several commands read off their options: durations, and names by comma."""

from __future__ import annotations

from ..errors import CalibrationError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Returns seconds of `90s`, `10m`, `1h` or a bare number of seconds. Raises: CalibrationError."""
    unit = _SECONDS.get(text[-1:])
    try:
        seconds = float(text if unit is None else text[:-1]) * (unit or 1.0)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise CalibrationError(f"--budget: expected a duration like 90s, 10m or 1h, got {text!r}")
    return seconds


def parse_names(text: str) -> tuple[str, ...]:
    """Returns the names of a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
