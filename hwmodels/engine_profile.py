"""What an engine adds to its kernels: a handful of physical constants of one version on one host.

None of them belongs to a model, a TP size or a run. Estimates stand in where no version was measured; a
fitted file (`engine_profiles/*.yaml`, made by `simllm fit-engine`) has them with their confidence.
docs/engine-profile.md says what each one means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from ..errors import ProfileError, nearest_choice
from .catalog import find_entry, stem_names
from .fitted import EngineConstant, Part
from .front_end_profile import FrontEndProfile
from .profile_file import checked_as, read_yaml

_FOLDER = Path(__file__).parent / "engine_profiles"
_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class EngineOverhead:
    """Constants of one engine version on one host [s; ratios have no unit], not of the model or the GPU.

    step_s: time per step in which the GPU waits whatever the step holds: preparing inputs, handing out
    sampled tokens, what scheduling does not overlap.
    eager_launch_s: CPU time to launch one kernel outside a CUDA graph, Python and dispatcher included.
    eager_moe_layer_s: CPU time that an MoE layer takes beyond its launches then: tuning tables, buffers,
    alignment of rows to experts.
    decode_ratio, prefill_ratio, moe_ratio: time of the engine's own kernel over the measured one that
    stands in for it (`kernels: vllm`). mixed_decode_ratio: time of decode attention in one launch with
    prefill chunks over its time alone. small_reduce_ratio: time of an all-reduce over peer memory, fused
    with the norm after it, over that of the measured one alone; large_reduce_ratio: of one by NCCL, whose
    ranks wait for the slowest clock.
    Source: estimated, for vLLM V1 on a 2024 server CPU: 0.2-0.5 ms a step with async scheduling; PyTorch
    dispatches an op in 5-10 us, an engine's custom op or a Triton launch through Python takes 20-60 us.
    """

    step_s: float = 0.3e-3
    eager_launch_s: float = 30e-6
    eager_moe_layer_s: float = 0.4e-3
    decode_ratio: float = 1.0
    prefill_ratio: float = 1.0
    moe_ratio: float = 1.0
    mixed_decode_ratio: float = 1.0
    small_reduce_ratio: float = 1.0
    large_reduce_ratio: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ProfileError(f"engine overhead {field.name} must be at least 0, got {value!r}")

    @property
    def kernel_ratios(self) -> Mapping[str, float]:
        """The ratios by the op that they belong to."""
        return {
            "attention_decode": self.decode_ratio,
            "mla_decode": self.decode_ratio,
            "attention_prefill": self.prefill_ratio,
            "grouped_gemm": self.moe_ratio,
        }


class FittedRun(Part):
    """One run of the fit: what it was compared on, and predicted over measured busy time - 1."""

    run: str
    num_steps: int
    busy_error: float


class EngineProfile(Part):
    """The file of one engine version on one device. front_end: None if no run told of one."""

    schema_version: Literal[1]
    kind: Literal["fitted"]
    name: Annotated[str, Field(min_length=1)]
    engine: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    device: str
    profile: str
    constants: Mapping[str, EngineConstant]
    runs: tuple[FittedRun, ...] = ()
    front_end: FrontEndProfile | None = None

    def overhead(self) -> EngineOverhead:
        """Returns the constants; those that were not fitted keep their estimates."""
        return EngineOverhead(**{name: constant.value for name, constant in self.constants.items()})


def engine_profile_names() -> tuple[str, ...]:
    """Returns the names of the shipped engine profiles, sorted."""
    return stem_names(_FOLDER, _SUFFIX)


def load_engine_profile(name_or_path: str | Path) -> EngineProfile:
    """Returns a shipped engine profile by name, or one by its path.

    Raises: ProfileError, one line, if there is none or its file is invalid.
    """
    path = find_entry(name_or_path, folder=_FOLDER, suffix=_SUFFIX, kind="engine profile", error=ProfileError)
    parsed = checked_as(EngineProfile, read_yaml(path), path)
    known = {field.name for field in fields(EngineOverhead)}
    for constant in parsed.constants:
        if constant not in known:
            nearest = nearest_choice(constant, known)
            hint = "" if nearest is None else f"; did you mean {nearest!r}?"
            raise ProfileError(f"{path}: constants.{constant}: no such constant{hint}")
    return parsed


def dump_engine_profile(profile: EngineProfile) -> str:
    """Returns the text of an engine profile's file, the same for the same profile."""
    plain = profile.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(plain, sort_keys=False, width=110, default_flow_style=None)


def shipped_engine_profile(engine: str, device: str) -> EngineProfile | None:
    """Returns the shipped profile of an engine on a device, None if there is none."""
    for name in engine_profile_names():
        profile = load_engine_profile(name)
        if (profile.engine, profile.device) == (engine, device):
            return profile
    return None


def shipped_front_end(engine: str, device: str) -> FrontEndProfile | None:
    """Returns the front end of an engine on a device, or else on another one: the CPU's work, not the GPU's.

    None if no shipped profile has one.
    """
    shipped = [load_engine_profile(name) for name in engine_profile_names()]
    found = [profile for profile in shipped if profile.engine == engine and profile.front_end is not None]
    found.sort(key=lambda profile: profile.device != device)
    return found[0].front_end if found else None
