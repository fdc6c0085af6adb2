"""The engine's front end: one thread between the clients and the engine's queue, on the way in and out.

On the way in it serves one request at a time, in the order of sending, then the request travels to the
queue. On the way out it handles the outputs of a step all together before any client hears of its token.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrontEndTimes:
    """What the front end takes [s]; nothing by default.

    request_s, prompt_token_s: service of one request, and of each token of its prompt. in_s: from there to
    the engine's queue. hold_s: an idle engine that is woken while another request is on its way begins so
    much later, with all that came until then: the thread that reads the queue's other end goes first.
    out_s, token_s, first_token_s, last_token_s: from a step's end until its tokens are with their clients,
    in all, per output of the step, per request that gets its first, and that gets its last token.
    turnaround_s: until a client of a closed loop sends again.
    """

    request_s: float = 0.0
    prompt_token_s: float = 0.0
    in_s: float = 0.0
    hold_s: float = 0.0
    out_s: float = 0.0
    token_s: float = 0.0
    first_token_s: float = 0.0
    last_token_s: float = 0.0
    turnaround_s: float = 0.0

    def way_out_s(self, num_sampled: int, num_first: int, num_last: int) -> float:
        """Returns the time from a step's end until its tokens are with their clients [s].

        num_sampled: outputs of the step, of which so many are first and last tokens of their requests.
        """
        per_kind_s = self.first_token_s * num_first + self.last_token_s * num_last
        return self.out_s + self.token_s * num_sampled + per_kind_s


class FrontEnd:
    """The way in, as a server with one place; `times.way_out_s` is the way out.

    takes_time: whether it delays anything at all.
    """

    def __init__(self, times: FrontEndTimes) -> None:
        self.times = times
        self.takes_time = times != FrontEndTimes()
        self._free_at = 0.0
        self._on_the_way: deque[tuple[float, float]] = deque()  # sent at, in the queue at

    def take(self, sent_at: float, prompt_tokens: int) -> float:
        """Takes in a request, in the order of sending; returns when it reaches the engine's queue [s]."""
        times = self.times
        service_s = times.request_s + times.prompt_token_s * prompt_tokens
        self._free_at = max(self._free_at, sent_at) + service_s
        queued_at = self._free_at + times.in_s
        if times.hold_s:
            self._on_the_way.append((sent_at, queued_at))
        return queued_at

    def hold_s(self, now: float) -> float:
        """Returns how long an idle engine that is woken now does not begin [s]; `now` never goes back."""
        on_the_way = self._on_the_way
        while on_the_way and on_the_way[0][1] <= now:
            on_the_way.popleft()
        return self.times.hold_s if on_the_way and on_the_way[0][0] <= now else 0.0
