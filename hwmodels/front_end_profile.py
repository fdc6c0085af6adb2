"""What an engine's front end takes between client and engine: the part of an engine profile for it.

It delays requests and tokens, not steps, so it belongs to the engine's version, its client and the host's
CPU, not to the GPU. `simllm fit-engine` writes it; docs/engine-profile.md says what each constant means.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .fitted import EngineConstant, NonNegative, Part


class FrontEndConstant(EngineConstant):
    """A fitted time [s], and the number of requests, tokens, bursts or gaps that show it."""

    num_observations: Annotated[int, Field(ge=1)]


class FrontEndConstants(Part):
    """The constants [s]; None is one that no run showed, and takes no time.

    request_s, prompt_token_s: serving one request, one after the other, and each token of its prompt. in_s:
    from there to the engine's queue. hold_s: how much later an idle engine begins while more is on its way
    in. out_s, token_s, first_token_s, last_token_s: from a step's end until its tokens are with their
    clients, in all, per output, per request that gets its first and that gets its last token.
    turnaround_s: until a client of a closed loop sends again.
    """

    request_s: FrontEndConstant
    prompt_token_s: FrontEndConstant
    in_s: FrontEndConstant
    hold_s: FrontEndConstant | None = None
    out_s: FrontEndConstant
    token_s: FrontEndConstant
    first_token_s: FrontEndConstant
    last_token_s: FrontEndConstant
    turnaround_s: FrontEndConstant | None = None

    def items(self) -> dict[str, FrontEndConstant]:
        """Returns the constants that were fitted, by name, in the order of a request's way."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: constant for name, constant in named.items() if constant is not None}


class FrontEndRun(Part):
    """One run of the fit: what the constants make of it.

    way_in_miss_s: by how much they miss the interval in which a request was recorded to come, on average.
    first_token_error_s, last_token_error_s: predicted - measured mean way out of such tokens [s], if any.
    """

    run: str
    num_requests: int
    way_in_miss_s: NonNegative
    first_token_error_s: float | None = None
    last_token_error_s: float | None = None


class FrontEndProfile(Part):
    """The front end of an engine version, as a client in the engine's own process found it."""

    constants: FrontEndConstants
    runs: tuple[FrontEndRun, ...] = ()

    def times(self) -> dict[str, float]:
        """Returns the times [s] by name; what no run showed takes none."""
        return {name: constant.value for name, constant in self.constants.items().items()}
