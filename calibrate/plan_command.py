"""`simllm calibrate plan`: what a sweep measures."""

from __future__ import annotations

from collections import Counter

import typer

from .plan import make_plan


def plan_command() -> None:
    """Show what is measured: points by op, implementation and dtype."""
    points = make_plan()
    counts = Counter((point.op, point.implementation, point.dtype) for point in points)
    for names, count in sorted(counts.items()):
        typer.echo(f"{count:5d}  {' '.join(names)}")
    typer.echo(f"{len(points):5d}  points in all")
