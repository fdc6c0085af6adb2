"""Reads the YAML of a profile: safely, against its schema, with one line for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import ProfileError

Schema = TypeVar("Schema", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """Returns what a YAML file holds. Raises: ProfileError, one line, if it cannot be read or parsed."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def checked(content: Any, schema: type[Schema], path: Path) -> Schema:
    """Returns `content` as `schema`. Raises: ProfileError, one line, with every field that is wrong."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ProfileError(f"{path}: {'; '.join(problems)}") from None
