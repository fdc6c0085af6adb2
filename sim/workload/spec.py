"""The `workload:` part of a scenario: what is asked of the system, as validated data.

One class per `kind`; nothing is read or drawn here. `build_demand` turns a `WorkloadSpec` into rows.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .arrival_spec import ArrivalSpec, BurstArrivals, ClosedLoopArrivals, GammaArrivals, PoissonArrivals
from .conversation_spec import ConversationSpec
from .length_spec import LengthSpec, Tokens
from .paths import DataPath
from .request_spec import Reasoning, ReasoningLimits, SampledSpec, SharedPrefix

RateScale = Annotated[float, Field(gt=0, description="Play the recorded arrivals this many times as fast.")]


class SyntheticSpec(SampledSpec):
    """Requests drawn from distributions. Give num_requests or duration_s."""

    kind: Literal["synthetic"] = "synthetic"
    num_requests: int | None = Field(None, ge=1)
    duration_s: float | None = Field(None, gt=0, description="Requests arrive before this instant.")
    arrivals: ArrivalSpec
    prompt_tokens: LengthSpec
    output_tokens: LengthSpec
    shared_prefix: SharedPrefix | None = None
    reasoning: Reasoning | None = None

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if (self.num_requests is None) == (self.duration_s is None):
            raise ValueError("give either num_requests or duration_s")
        if self.duration_s is None:
            return self
        if isinstance(self.arrivals, BurstArrivals | ClosedLoopArrivals):
            raise ValueError(f"{self.arrivals.kind} arrivals need num_requests, not duration_s")
        if isinstance(self.arrivals, PoissonArrivals | GammaArrivals) and self.arrivals.rescale_to_rate:
            raise ValueError("rescale_to_rate needs num_requests, not duration_s")
        return self


class TraceSpec(SampledSpec):
    """What the trace kinds have in common: a file, a limit, and what to play where the file is absent."""

    kind: str
    path: DataPath
    num_requests: int | None = Field(None, ge=1, description="Play the first rows of the file only.")
    fallback: SyntheticSpec | None = Field(
        None, description="Played when the file is absent; a note says so."
    )


class AzureSpec(TraceSpec):
    """Azure LLM inference traces of 2023 and 2024: CSV with TIMESTAMP, ContextTokens, GeneratedTokens."""

    kind: Literal["azure"] = "azure"
    rate_scale: RateScale = 1.0


class MooncakeSpec(TraceSpec):
    """Mooncake traces: JSONL with timestamp [ms], input_length, output_length, hash_ids."""

    kind: Literal["mooncake"] = "mooncake"
    rate_scale: RateScale = 1.0
    block_tokens: Tokens = Field(512, description="Prompt tokens that one hash id stands for.")
    sessions: Literal["none", "label", "follow"] = Field(
        "none",
        description="label: number the turns of conversations, found by their hash ids. follow: a turn also"
        " waits for the answer to the one before it.",
    )


class VllmBenchSpec(TraceSpec):
    """A result of `vllm bench serve --save-result --save-detailed`: .json or .json.gz."""

    kind: Literal["vllm_bench"] = "vllm_bench"
    rate_scale: RateScale = 1.0
    arrivals: Literal["auto", "replay", "closed_loop"] = Field(
        "auto",
        description="replay: at the file's start_times. closed_loop: as answers free the clients."
        " auto: closed_loop if the file was recorded so (max_concurrency at an unlimited rate).",
    )
    num_clients: int | None = Field(
        None, ge=1, description="With closed_loop: the number of clients, if not the file's max_concurrency."
    )
    image_token_pixels: int = Field(
        28, ge=1, description="Side of the square of pixels that becomes one image token."
    )

    @model_validator(mode="after")
    def _check_clients(self) -> Self:
        if self.num_clients is not None and self.arrivals != "closed_loop":
            raise ValueError("num_clients needs arrivals: closed_loop")
        return self


class ShareGptSpec(TraceSpec):
    """Conversations, ShareGPT-like: JSONL of texts or token counts.

    Every answered message becomes a request whose prompt is the conversation so far.
    """

    kind: Literal["sharegpt"] = "sharegpt"
    arrivals: ArrivalSpec = Field(description="When conversations begin; in a closed loop, requests.")
    turn_interval_s: float = Field(
        30.0, ge=0, description="From the arrival of one turn to that of the next, in an open loop."
    )
    max_turns: int | None = Field(None, ge=1, description="Play this many turns of a conversation at most.")
    chars_per_token: float = Field(4.0, gt=0, description="Turns the length of a text into tokens.")


class ServeGenSpec(TraceSpec):
    """Clients of a production service, as ServeGen publishes them: a folder, or a file fitted to one.

    Each client has its own rates, burstiness, lengths and share of reasoning, which change over the day.
    """

    kind: Literal["servegen"] = "servegen"
    rate_scale: RateScale = 1.0
    start_s: float = Field(0.0, ge=0, lt=86400, description="When to begin, since the beginning of the day.")
    duration_s: float = Field(3600.0, gt=0, le=86400, description="How much of the day to play.")
    reasoning: ReasoningLimits = ReasoningLimits()


class TableSpec(TraceSpec):
    """simllm's own rows: requests.parquet or .csv of a run, or .jsonl of `simllm workload`."""

    kind: Literal["table"] = "table"
    rate_scale: RateScale = 1.0


AnyTraceSpec = AzureSpec | MooncakeSpec | VllmBenchSpec | ShareGptSpec | ServeGenSpec | TableSpec
WorkloadSpec = Annotated[SyntheticSpec | ConversationSpec | AnyTraceSpec, Field(discriminator="kind")]
