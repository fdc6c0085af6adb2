"""Turns pydantic's errors into a scenario author's: path, value, expectation, nearest valid choice."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import Problem, nearest_choice


def problems_of(error: ValidationError, root: type[BaseModel], data: object) -> list[Problem]:
    """Returns one problem per pydantic error, in the order of the scenario's fields."""
    details = error.errors(include_url=False)
    # A list whose only item is wrong counts as too short as well: say the first thing only.
    return [_problem(detail, root, data) for detail in details if not _is_echo(detail)]


def _is_echo(detail: ErrorDetails) -> bool:
    return detail["type"] == "too_short" and bool(detail["input"])


def _problem(detail: ErrorDetails, root: type[BaseModel], data: object) -> Problem:
    keys, owner = _locate(detail["loc"], root, data)
    path = "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            fields = () if owner is None else owner.model_fields
            nearest = nearest_choice(keys[-1], fields)
            known = "" if nearest or owner is None else f"; known here: {', '.join(fields)}"
            return Problem(path, f"unknown field{known}", nearest=nearest)
        case "missing":
            return Problem(path, "is required")
        case "union_tag_invalid":
            tags = [tag.strip("'") for tag in str(context["expected_tags"]).split(", ")]
            given = context["tag"]
            return Problem(
                f"{path}.kind", f"must be one of {', '.join(tags)}", given, nearest_choice(given, tags)
            )
        case "union_tag_not_found":
            return Problem(f"{path}.kind", "is required")
        case "literal_error":
            choices = [
                choice.strip("'") for choice in str(context["expected"]).replace(" or ", ", ").split(", ")
            ]
            return Problem(
                path, f"must be one of {', '.join(choices)}", value, nearest_choice(value, choices)
            )
        case "too_short":
            return Problem(path, "must have at least one item")
        case "tuple_type" | "list_type":
            return Problem(path, "must be a list", value if _is_plain(value) else None)
        case "model_attributes_type" | "model_type" | "dict_type":
            return Problem(path, "must be a mapping of fields", value if _is_plain(value) else None)
        case "value_error":
            return Problem(path, str(context["error"]), value if _is_plain(value) else None)
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return Problem(path, message.replace("input should be", "must be"), value if _is_plain(value) else None)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _locate(
    loc: Sequence[int | str], root: type[BaseModel], data: object
) -> tuple[list[int | str], type[BaseModel] | None]:
    """Returns the keys that lead to an error in the data, and the model whose field is the last of them.

    pydantic's location also names the branch of each union that it took, which is no key of the data.
    """
    keys: list[int | str] = []
    annotation: Any = root
    owner: type[BaseModel] | None = root
    for element in loc:
        model = _model_of(annotation)
        if model is None and isinstance(element, str) and (branch := _branch(annotation, element)):
            annotation = branch
            continue
        if isinstance(element, str) and model is None and not (isinstance(data, dict) and element in data):
            continue
        keys.append(element)
        owner = model if model is not None else owner
        annotation = _inside(annotation, element)
        data = _value(data, element)
    return keys, owner


def _model_of(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _members(annotation: Any) -> tuple[Any, ...]:
    """Returns the alternatives of a union, else the annotation alone."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return (annotation,)


def _branch(annotation: Any, tag: str) -> type[BaseModel] | None:
    for member in _members(annotation):
        model = _model_of(member)
        if model is not None and (field := model.model_fields.get("kind")) and field.default == tag:
            return model
    return None


def _inside(annotation: Any, element: int | str) -> Any:
    """Returns the annotation of a field or item, looking through optional models."""
    for member in _members(annotation):
        model = _model_of(member)
        if isinstance(element, str) and model is not None and element in model.model_fields:
            field = model.model_fields[element]
            return field.annotation
        if isinstance(element, int) and get_origin(member) in (tuple, list):
            return get_args(member)[0]
    return None


def _value(data: object, element: int | str) -> object:
    if isinstance(data, dict):
        return data.get(element)
    if isinstance(data, list) and isinstance(element, int) and element < len(data):
        return data[element]
    return None
