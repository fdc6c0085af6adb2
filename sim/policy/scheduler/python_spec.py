"""The settings of a scheduler that a user has written in Python."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .engine_spec import EngineSpec


class PythonSpec(EngineSpec):
    """A policy of your own, loaded from a file; it runs only where that is allowed (--allow-python)."""

    kind: Literal["python"] = "python"
    path: str = Field(
        pattern=r"^.+\.py:[A-Za-z_]\w*$", description="File and class, as in my_policy.py:MyPolicy."
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of the file; where it is given, no other is run. The lock file has it.",
    )
    options: dict[str, bool | int | float | str] = Field({}, description="The policy's own settings.")
    max_num_batched_tokens: int = Field(8192, ge=1, description="Token budget of one step.")
    max_num_seqs: int = Field(1024, ge=1, description="Requests that may run at once.")
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )
    async_scheduling: bool = Field(
        True, description="Schedule a step while the one before runs: two steps in flight."
    )

    @property
    def file(self) -> str:
        """The path of the file alone."""
        return self.path.rpartition(":")[0]

    @property
    def class_name(self) -> str:
        """The name of the class in it."""
        return self.path.rpartition(":")[2]
