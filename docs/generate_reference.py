"""Writes scenario-reference.md from the scenario's JSON Schema: run it after a change, a test compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simllm.sim.scenario import Scenario

REFERENCE = Path(__file__).parent / "scenario-reference.md"

HEAD = """# Scenario reference

Every field of a scenario file. Generated from the schema by `make generated`; do not edit.

A field without a default is required; an unknown field is an error. Where several kinds are possible, `kind`
chooses among them. Units are in the names: `_s` seconds, `_ms` milliseconds, `_tokens` tokens.
Any field can be set on the command line: `simllm run 01-first-run --set pools.0.kv.block_size=32`.

`simllm schema > scenario.schema.json` writes the JSON Schema; an editor with a YAML language server then
completes and checks a scenario beside it that begins with the line
`# yaml-language-server: $schema=scenario.schema.json`.
"""

Schema = dict[str, Any]


def reference(schema: Schema) -> str:
    """Returns the reference of a JSON Schema as Markdown, parts in the order in which fields mention them."""
    parts = schema["$defs"]
    names = dict.fromkeys(_mentioned(schema["properties"], parts))
    sections = [_section(part, parts) for part in (schema, *(parts[name] for name in names))]
    return "\n".join([HEAD, *sections])


def _mentioned(value: object, parts: Schema) -> Iterator[str]:
    """Yields the names of the parts that `value` refers to, each followed by those that it refers to."""
    if isinstance(value, list):
        for item in value:
            yield from _mentioned(item, parts)
    elif isinstance(value, dict):
        if "$ref" in value:
            name = _target(value)
            yield name
            yield from _mentioned(parts[name]["properties"], parts)
        for key, inner in value.items():
            if key not in ("default", "discriminator"):
                yield from _mentioned(inner, parts)


def _target(value: Schema) -> str:
    return str(value["$ref"]).rpartition("/")[2]


def _section(part: Schema, parts: Schema) -> str:
    required = {*part.get("required", ()), "kind"}
    rows = [_row(field, value, parts, field in required) for field, value in part["properties"].items()]
    table = ["| field | value | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {part['title']}\n", f"{part['description']}\n", *table, ""])


def _row(field: str, value: Schema, parts: Schema, is_required: bool) -> str:
    default = "required" if is_required else _default(value["default"])
    return f"| `{field}` | {_type(value, parts)} | {default} | {value.get('description', '')} |"


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return f"`{value['kind']}`" if "kind" in value else "its defaults"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(value: Schema, parts: Schema) -> str:
    """Returns what a field accepts, in words; parts are links, called by their kind if they have one."""
    if "$ref" in value:
        name = _target(value)
        shown = parts[name]["properties"].get("kind", {}).get("const")
        return f"[{name if shown is None else f'`{shown}`'}](#{name.lower()})"
    if choices := value.get("oneOf", value.get("anyOf")):
        return ", ".join(_type(choice, parts) for choice in choices if choice.get("type") != "null")
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if value["type"] == "array":
        return f"list of {_type(value['items'], parts)}"
    if value["type"] == "object":
        return f"names to {_type(value['additionalProperties'], parts)}"
    return " ".join([_WORDS[value["type"]], *_bounds(value)])


_WORDS = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _bounds(value: Schema) -> Iterator[str]:
    bounds = (f"{sign} {value[key]}" for key, sign in _SIGNS.items() if key in value)
    if joined := ", ".join(bounds):
        yield joined


if __name__ == "__main__":
    REFERENCE.write_text(reference(Scenario.model_json_schema()), encoding="utf-8")
