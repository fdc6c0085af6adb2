"""What to measure, and in which order: grids of sizes as pure data, most informative points first.

The probes come first. Then every stream (one op, implementation and dtype) walks its grid so that any prefix
covers it evenly, and streams are interleaved by weight, so that a shorter budget thins all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CalibrationError, nearest_choice
from ..hwmodels.op_point import OpPoint
from .plan_attention import attention_streams
from .plan_products import product_streams
from .plan_rows import probe_points, row_streams
from .stream import Stream


def streams() -> tuple[Stream, ...]:
    """Returns all grids."""
    return (*product_streams(), *attention_streams(), *row_streams())


def make_plan(ops: Sequence[str] = (), implementations: Sequence[str] = ()) -> tuple[OpPoint, ...]:
    """Returns all points of these ops and implementations (all if empty), most informative first.

    An op's name or the first words of it: `attention` takes every attention op, `probe` all probes.
    Raises: CalibrationError, one line, for a name that nothing has.
    """
    chosen = [stream for stream in streams() if _is_wanted(stream.op, ops)]
    probes = [point for point in probe_points() if _is_wanted(point.op, ops)]
    _check(ops, {point.op for point in probe_points()} | {stream.op for stream in streams()}, "op")
    _check(implementations, {stream.implementation for stream in streams()}, "backend")
    ranked = (
        ((place + 1) / stream.weight, order, point)
        for order, stream in enumerate(chosen)
        for place, point in enumerate(stream.points())
    )
    ordered = [point for _, _, point in sorted(ranked, key=lambda entry: entry[:2])]
    return tuple(
        point
        for point in dict.fromkeys([*probes, *ordered])
        if not implementations or point.implementation in implementations
    )


def _is_wanted(op: str, ops: Sequence[str]) -> bool:
    return not ops or any(op == name or op.startswith(f"{name}_") for name in ops)


def _check(names: Sequence[str], known: set[str], what: str) -> None:
    for name in names:
        if not any(_is_wanted(other, [name]) for other in known):
            nearest = nearest_choice(name, known)
            hint = f"one of {', '.join(sorted(known))}" if nearest is None else f"did you mean {nearest!r}?"
            raise CalibrationError(f"{what} {name!r} is not measured; {hint}")
