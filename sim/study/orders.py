"""What goes to a worker and what comes back; whoever runs the workers, this is all they see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Payload = Mapping[str, Any]
Row = dict[str, Any]


class Order(NamedTuple):
    """One simulation to run: a key of the caller's, and what `worker.run_order` takes, plain data."""

    key: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Answer:
    """How an order ended: with a row of results, or with one line that says why not.

    wall_s: real time that it took [s].
    """

    key: str
    row: Row | None
    error: str | None
    wall_s: float


class Workers(Protocol):
    """Those who run orders, in any order, many at a time. Used in a `with` statement."""

    def answers(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Yields one answer per order, as they come; an order that fails or kills its worker has one, too."""
        ...

    def __enter__(self) -> Workers: ...

    def __exit__(self, *_: object) -> None: ...


def answer_of(key: str, reply: Mapping[str, Any]) -> Answer:
    """Returns the answer that a worker's reply stands for."""
    return Answer(key, reply.get("row"), reply.get("error"), float(reply.get("wall_s", 0.0)))
