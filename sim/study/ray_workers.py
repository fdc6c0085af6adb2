"""Workers on a Ray cluster, an order per task. simllm must be installed on its nodes, in the same version."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import SimllmError
from .orders import Answer, Order, answer_of
from .worker import run_order

# Ray itself tries for minutes to reach an address where nobody listens.
_CONNECT_S = 5.0


class RayWorkers:
    """The cores of a Ray cluster."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> RayWorkers:
        """Connects. Raises: SimllmError if Ray is not installed or no cluster answers there."""
        try:
            import ray
        except ImportError:
            raise SimllmError("--ray needs Ray: pip install 'simllm[ray]'") from None
        try:
            _check_that_someone_listens(self._address)
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            what = " ".join(str(error).split())
            raise SimllmError(f"--ray {self._address}: no cluster answers: {what}") from None
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def answers(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Yields one answer per order, as they come; a task whose worker or node dies is an error."""
        import ray

        # A point that kills its worker would kill the next one, too: it is recorded, not tried again.
        run: Any = ray.remote(num_cpus=1, max_retries=0)(run_order)
        pending = {run.remote(order.payload): order.key for order in orders}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            key = pending.pop(done)
            try:
                reply = ray.get(done)
            except ray.exceptions.RayError as error:
                reply = {"error": f"the worker died: {str(error).splitlines()[0]}"}
            yield answer_of(key, reply)


def _check_that_someone_listens(address: str) -> None:
    """Raises: OSError if nobody takes a connection at host:port; other addresses, as `auto`, are Ray's."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
