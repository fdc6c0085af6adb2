"""Workers on this machine: a process per core, a thread per process that waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread

from .orders import Answer, Order, answer_of
from .worker_process import WorkerProcess


def num_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalWorkers:
    """A pool of processes. One that dies takes only its own order with it."""

    def __init__(self, num_workers: int) -> None:
        self._waiting: SimpleQueue[Order | None] = SimpleQueue()
        self._done: SimpleQueue[Answer] = SimpleQueue()
        self._processes = [WorkerProcess() for _ in range(num_workers)]
        self._threads = [Thread(target=self._serve, args=(one,), daemon=True) for one in self._processes]

    def __enter__(self) -> LocalWorkers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.close()  # orders that still wait are answered without being run
        for _ in self._threads:
            self._waiting.put(None)
        for thread, process in zip(self._threads, self._processes, strict=True):
            thread.join()
            process.bury()

    def answers(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Yields one answer per order, as they come."""
        for order in orders:
            self._waiting.put(order)
        for _ in orders:
            yield self._done.get()

    def _serve(self, process: WorkerProcess) -> None:
        while (order := self._waiting.get()) is not None:
            self._done.put(answer_of(order.key, process.ask(order.payload)))
