"""Reads a Hugging Face config.json field by field, with errors that name the file and the field.

Here is also the one derived figure that every family shares: the longest sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from ..errors import SimllmError

_MAX_LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_UNSCALED_ROPE_TYPES = ("default", "mrope", "su", "longrope", "llama3")


@dataclass(frozen=True, slots=True)
class ConfigFields:
    """One JSON object of a config.

    where: the file or model name that errors begin with. reader: the architecture that needs the fields.
    path: of this object inside the file, such as ``vision_config.``; empty at the top.
    """

    values: Mapping[str, object]
    where: str
    reader: str
    path: str = ""

    def integer(self, *names: str, default: int | None = None, minimum: int = 1) -> int:
        """Returns the first of `names` that is present, a whole number of at least `minimum`.

        A list of equal sides, such as ``"patch_size": [14, 14]``, counts as its first item.
        Raises: SimllmError if none is present and there is no default, or the value is of another kind.
        """
        value = self.optional_integer(*names, minimum=minimum)
        if value is not None:
            return value
        if default is not None:
            return default
        return self._fail(names[0], f"is missing, which {self.reader} needs", names[1:])

    def optional_integer(self, *names: str, minimum: int = 1) -> int | None:
        """Returns the first of `names` that is present and not null, else None. Raises: as `integer`."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, list) and value:
                value = value[0]
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                self._fail(name, f"must be a whole number of at least {minimum}, not {value!r}")
            return value
        return None

    def integers(self, name: str) -> tuple[int, ...]:
        """Returns a list of whole numbers, empty if absent. Raises: SimllmError for anything else."""
        values = self.values.get(name) or []
        if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
            self._fail(name, f"must be a list of whole numbers, not {values!r}")
        return tuple(values)

    def strings(self, name: str) -> tuple[str, ...]:
        """Returns a list of strings, empty if absent. Raises: SimllmError for anything else."""
        values = self.values.get(name) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self._fail(name, f"must be a list of strings, not {values!r}")
        return tuple(values)

    def number(self, name: str, *, default: float) -> float:
        """Returns a positive number. Raises: SimllmError for anything else."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            self._fail(name, f"must be a positive number, not {value!r}")
        return value

    def flag(self, *names: str, default: bool) -> bool:
        """Returns the first of `names` that is present. Raises: SimllmError if it is no true or false."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if not isinstance(value, bool):
                self._fail(name, f"must be true or false, not {value!r}")
            return value
        return default

    def has(self, name: str) -> bool:
        """Returns whether the field is there and not null."""
        return self.values.get(name) is not None

    def child(self, *names: str) -> ConfigFields:
        """Returns the object under the first of `names` that is present. Raises: SimllmError if none is."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, dict):
                return replace(self, values=value, path=f"{self.path}{name}.")
        return self._fail(names[0], f"is missing, which {self.reader} needs", names[1:])

    def with_defaults(self, defaults: Mapping[str, object]) -> ConfigFields:
        """Returns the same object with `defaults` for the fields that it leaves out."""
        return replace(self, values={**defaults, **self.values})

    def require(self, name: str, value: object, *, default: object) -> None:
        """Raises SimllmError unless the field is `value`: the only one whose effect is modelled."""
        found = self.values.get(name, default)
        if found != value:
            self._fail(name, f"is {found!r}; {self.reader} is only modelled with {value!r}")

    def _fail(self, name: str, what: str, aliases: tuple[str, ...] = ()) -> NoReturn:
        also = f" (or {', '.join(aliases)})" if aliases else ""
        raise SimllmError(f"{self.where}: {self.path}{name}{also} {what}")


def max_model_len(fields: ConfigFields, *, default: int | None = None) -> int:
    """Returns the longest sequence [tokens], rotary scaling applied, as vLLM derives it.

    Raises: SimllmError if the config states no length and there is no default.
    Source: vLLM, `_get_and_verify_max_len`, https://github.com/vllm-project/vllm
    """
    lengths = [fields.integer(name) for name in _MAX_LENGTH_FIELDS if fields.has(name)]
    if not lengths:
        return fields.integer(*_MAX_LENGTH_FIELDS, default=default)
    length = min(lengths)
    rope_name = "rope_scaling" if fields.has("rope_scaling") else "rope_parameters"
    if not fields.has(rope_name):
        return length
    rope = fields.child(rope_name)
    rope_type = rope.values.get("rope_type", rope.values.get("type"))
    if rope_type in _UNSCALED_ROPE_TYPES:
        return length
    if rope_type == "yarn":
        length = rope.integer("original_max_position_embeddings", default=length)
    return int(length * rope.number("factor", default=1.0))
