"""Overrides from the command line: `--set pools.0.scheduler.max_num_seqs=64`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import yaml

from ..errors import Problem, ScenarioError


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns a copy of `data` with each `path=value` set; fields on the way that are absent are made.

    Raises: ScenarioError for an override that has no `=`, or whose path leads through a plain value or
    past the end of a list.
    """
    changed = deepcopy(data)
    problems = []
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            problems.append(Problem("--set", "must be path.to.field=value", override))
            continue
        try:
            _set(changed, path.split("."), yaml.safe_load(text))
        except yaml.YAMLError:
            problems.append(Problem(f"--set {path}", "has a value that is not valid YAML", text))
        except LookupError as error:
            problems.append(Problem(f"--set {path}", str(error.args[0])))
    if problems:
        raise ScenarioError(problems)
    return changed


def _set(data: Any, keys: list[str], value: object) -> None:
    """Raises: LookupError with a message if the path can't be followed."""
    for position, key in enumerate(keys):
        is_last = position == len(keys) - 1
        if isinstance(data, list):
            if not key.isdecimal() or int(key) >= len(data):
                raise LookupError(f"{key!r} is not one of the {len(data)} items, which count from 0")
            if is_last:
                data[int(key)] = value
            else:
                data = data[int(key)]
        elif isinstance(data, dict):
            if is_last:
                data[key] = value
            else:
                data = data.setdefault(key, {})
        else:
            raise LookupError(f"{'.'.join(keys[:position])} is a plain value, {key!r} can't be set in it")
