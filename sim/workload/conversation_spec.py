"""`kind: conversation`: users who wait for answers, agents that call tools and fork; as validated data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..spec import Spec
from .arrival_spec import ArrivalSpec
from .length_spec import LengthSpec, Tokens
from .request_spec import DelaySpec, Reasoning, SampledSpec, SharedPrefix

MeanCount = Annotated[float, Field(ge=0)]


class Turns(Spec):
    """How many messages a user sends in a session: 1 plus a geometric number, cut at max_turns."""

    mean_turns: float = Field(ge=1, description="Mean before it is cut.")
    max_turns: int | None = Field(None, ge=1)


class Documents(Spec):
    """Retrieved documents, put in front of a user's message; popular ones are shared between sessions."""

    num_documents: int = Field(ge=1, description="Documents of the corpus.")
    document_tokens: LengthSpec = Field(description="Drawn once per document.")
    num_retrieved: int = Field(1, ge=1, le=1000, description="Documents for each message.")
    zipf_exponent: float = Field(
        0.0, ge=0, description="Popularity: the r-th document has a weight of r^-exponent; 0 is equal."
    )
    turns: Literal["first", "all"] = Field("all", description="Which messages of a session retrieve.")

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if self.num_retrieved > self.num_documents:
            raise ValueError(f"num_retrieved exceeds num_documents ({self.num_documents})")
        return self


class ToolCalls(Spec):
    """Tool calls before the last answer of a turn: each is a request, a pause, and a result in the prompt."""

    mean_calls: MeanCount = Field(description="Mean of the geometric number of calls in a turn, from 0 on.")
    max_calls: int | None = Field(None, ge=0)
    call_tokens: LengthSpec = Field(description="The answer that calls the tool.")
    result_tokens: LengthSpec = Field(description="What the tool gives back, added to the prompt.")
    pause: DelaySpec = Field(description="How long the tool runs.")
    kv: Literal["keep", "drop"] = Field(
        "keep",
        description="drop: what was computed before the pause can't be found again. keep: it can, as long as"
        " the prefix cache holds it.",
    )


class Agents(Spec):
    """Each turn forks: a plan, branches that work on it side by side, and a join that reads their answers."""

    num_branches: int = Field(ge=2, le=1000)
    depth: int = Field(1, ge=1, le=100, description="Requests in a row in each branch.")
    task_tokens: LengthSpec = Field(description="What each request of a branch adds to its prompt.")


class ConversationSpec(SampledSpec):
    """Sessions of several turns; the next turn is sent a while after the answer has arrived.

    The prompt of a turn is the conversation so far and the user's next message.
    """

    kind: Literal["conversation"] = "conversation"
    num_sessions: int = Field(ge=1)
    arrivals: ArrivalSpec = Field(
        description="When sessions begin; in a closed loop each client begins one when its last has ended."
    )
    turns: Turns
    think_time: DelaySpec = Field(description="From the arrival of an answer to the next message.")
    prompt_tokens: LengthSpec = Field(description="A user's message.")
    output_tokens: LengthSpec = Field(description="An answer.")
    system_prompt: SharedPrefix | None = None
    documents: Documents | None = None
    reasoning: Reasoning | None = None
    keeps_reasoning: bool = Field(
        False, description="Whether the reasoning of earlier answers stays in the prompts of later turns."
    )
    max_prompt_tokens: Tokens | None = Field(
        None, description="A session ends before a message that would make its prompt longer than this."
    )
    tools: ToolCalls | None = None
    agents: Agents | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.tools is not None and self.agents is not None:
            raise ValueError("give either tools or agents")
        if self.num_samples > 1 or self.beam_width:
            raise ValueError("a conversation goes on from one answer: no num_samples, no beam_width")
        return self
