"""Where a request's keys and values lie: in blocks anywhere, or in one piece."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ...spec import Spec


class PagedLayout(Spec):
    """Blocks of block_size tokens anywhere, taken as they are needed."""

    kind: Literal["paged"] = "paged"


class ContiguousLayout(Spec):
    """One region per request, reserved when it is admitted (Orca, Hugging Face)."""

    kind: Literal["contiguous"] = "contiguous"
    allocator: Literal["first_fit", "best_fit", "buddy"] = Field(
        "first_fit", description="Which free region a request gets; buddy rounds up to powers of two."
    )
    reserve: Literal["max", "pow2", "oracle"] = Field(
        "max",
        description="Tokens reserved: max_model_len, the prompt and the next power of two of the answer, or "
        "what the request will fill.",
    )
    compaction: bool = Field(
        False, description="Slide regions together when free slots would suffice but no hole is large enough."
    )

    @model_validator(mode="after")
    def _check_compaction(self) -> ContiguousLayout:
        if self.compaction and self.allocator == "buddy":
            raise ValueError(
                "compaction needs allocator first_fit or best_fit: regions of the buddy system are aligned"
            )
        return self


Layout = PagedLayout | ContiguousLayout
