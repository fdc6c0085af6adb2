"""Reads a ModelSpec from a Hugging Face config.json, or from a shipped one by name.

Here the architecture is found and the reader chosen; the readers are in `gated_config`, `plain_config` and
`vision_config`. What follows from the shapes is in `model`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import SimllmError, nearest_choice
from .catalog import find_entry, stem_names
from .config_fields import ConfigFields
from .gated_config import GATED_READERS
from .model import ModelSpec
from .plain_config import PLAIN_READERS
from .vision_config import VISION_READERS

_FOLDER = Path(__file__).parent / "models"
_SUFFIX = ".json"

_TEXT_READERS = {**GATED_READERS, **PLAIN_READERS}

# Language models inside multimodal ones often state only their model_type.
_ARCHITECTURE_OF_MODEL_TYPE: Mapping[str, str] = {
    "bloom": "BloomForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "falcon": "FalconForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "internlm2": "InternLM2ForCausalLM",
    "internvl": "InternVLForConditionalGeneration",
    "internvl_chat": "InternVLChatModel",
    "llama": "LlamaForCausalLM",
    "llava": "LlavaForConditionalGeneration",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "opt": "OPTForCausalLM",
    "qwen": "QWenLMHeadModel",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
}

# A nested Llama config leaves out what equals the class's defaults (LLaVA-1.5 states next to nothing).
# Source: Hugging Face LlamaConfig
_NESTED_LLAMA_DEFAULTS: Mapping[str, object] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
}


def model_names() -> tuple[str, ...]:
    """Returns the names of the shipped models, sorted."""
    return stem_names(_FOLDER, _SUFFIX)


def load_model(name_or_path: str | Path) -> ModelSpec:
    """Returns a shipped model by name or Hugging Face id, or any model by the path of its config.json.

    A folder means the config.json in it. Names match whatever their case.
    Raises: SimllmError, one line, if there is no such model or its config cannot be read.
    """
    given = Path(name_or_path)
    wanted: str | Path = name_or_path
    if given.is_dir():
        wanted = given / "config.json"
    elif not given.is_file():
        wanted = _hf_ids().get(str(name_or_path).lower(), name_or_path)
    path = find_entry(wanted, folder=_FOLDER, suffix=_SUFFIX, kind="model", error=SimllmError)
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return _read_model(_read_json(path), name=name, where=str(path))


def model_from_hf_config(config: Mapping[str, object], name: str) -> ModelSpec:
    """Returns the model that a parsed Hugging Face config.json describes.

    Raises: SimllmError, one line that begins with `name`, if the architecture is unknown (with the nearest
    known one) or a field is missing or malformed.
    """
    return _read_model(config, name=name, where=name)


def _read_model(config: Mapping[str, object], *, name: str, where: str) -> ModelSpec:
    architecture = _architecture(config, where)
    fields = ConfigFields(config, where, architecture)
    if architecture in _TEXT_READERS:
        return _TEXT_READERS[architecture](fields, name)
    text = _read_text(fields, name)
    vision = VISION_READERS[architecture](fields, text.hidden_size)
    return replace(text, architecture=architecture, vision=vision)


def _read_text(fields: ConfigFields, name: str) -> ModelSpec:
    """Returns the language model inside a multimodal one; early Qwen2.5-VL configs keep it at the top."""
    if fields.reader == "Qwen2_5_VLForConditionalGeneration" and not fields.has("text_config"):
        return _TEXT_READERS["Qwen2ForCausalLM"](replace(fields, reader="Qwen2ForCausalLM"), name)
    text = fields.child("text_config", "llm_config")
    architecture = _text_architecture(text)
    if architecture == "LlamaForCausalLM":
        text = text.with_defaults(_NESTED_LLAMA_DEFAULTS)
    if fields.has("tie_word_embeddings"):
        text = text.with_defaults({"tie_word_embeddings": fields.values["tie_word_embeddings"]})
    return _TEXT_READERS[architecture](replace(text, reader=architecture), name)


def _architecture(config: Mapping[str, object], where: str) -> str:
    """Returns the architecture that the config states, by its name or, without one, by its model_type.

    A known model_type does not make up for an unknown name: a reward model has another head.
    """
    stated, model_type = _stated_architecture(config), config.get("model_type")
    if stated is None:
        if model_type is None:
            raise SimllmError(
                f"{where}: architectures is missing; a config.json has ['LlamaForCausalLM'] or so"
            )
        if model_type not in _ARCHITECTURE_OF_MODEL_TYPE:
            raise _unknown(where, "model_type", model_type, _ARCHITECTURE_OF_MODEL_TYPE)
        return _ARCHITECTURE_OF_MODEL_TYPE[str(model_type)]
    if stated not in _TEXT_READERS and stated not in VISION_READERS:
        raise _unknown(where, "architectures[0]", stated, (*_TEXT_READERS, *VISION_READERS))
    return stated


def _text_architecture(text: ConfigFields) -> str:
    """Returns the architecture of a nested language model, whose stated one may be the multimodal one."""
    stated, model_type = _stated_architecture(text.values), text.values.get("model_type")
    for candidate in (stated, _ARCHITECTURE_OF_MODEL_TYPE.get(str(model_type))):
        if candidate in _TEXT_READERS:
            return str(candidate)
    raise _unknown(text.where, f"{text.path}model_type", model_type, _ARCHITECTURE_OF_MODEL_TYPE)


def _stated_architecture(config: Mapping[str, object]) -> str | None:
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else None


def _unknown(where: str, field: str, value: object, known: Iterable[str]) -> SimllmError:
    names = tuple(known)
    nearest = nearest_choice(value, names)
    hint = f"known are {', '.join(names)}" if nearest is None else f"the nearest known one is {nearest!r}"
    return SimllmError(f"{where}: {field} is {value!r}, which cannot be read; {hint}")


def _hf_ids() -> Mapping[str, str]:
    """Returns the shipped model of every Hugging Face id, in lower case, that has the same shapes."""
    return {
        hf_id.lower(): path.stem
        for path in sorted(_FOLDER.glob(f"*{_SUFFIX}"))
        for hf_id in ConfigFields(_read_json(path), str(path), "the catalog").strings("_hf_ids")
    }


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SimllmError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SimllmError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise SimllmError(f"{path}: holds no JSON object")
    return config
