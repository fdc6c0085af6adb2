"""Reads and writes the YAML of a profile: safely, against its schema, with one line for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import ProfileError
from .profile_schema import CalibratedFile

Schema = TypeVar("Schema", bound=BaseModel)
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Returns what a YAML file holds. Raises: ProfileError, one line, if it cannot be read or parsed."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def _parsed(text: str) -> Any:
    """Returns plain values only; libyaml, where it is built in, parses a profile in a tenth of the time."""
    loader = _SAFE_LOADER(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def checked(content: Any, path: Path) -> CalibratedFile:
    """Returns `content` as a profile. Raises: ProfileError, one line, with every field that is wrong."""
    return checked_as(CalibratedFile, content, path)


def checked_as(schema: type[Schema], content: Any, path: Path) -> Schema:
    """Returns `content` as `schema`. Raises: ProfileError, one line, with every field that is wrong."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ProfileError(f"{path}: {'; '.join(problems)}") from None


def read_calibrated(path: Path) -> CalibratedFile:
    """Returns a calibrated profile's file. Raises: ProfileError, one line, if it is invalid."""
    return checked(read_yaml(path), path)


def dump_profile(content: Mapping[str, Any]) -> str:
    """Returns the text of a calibrated profile, the same for the same content."""
    plain = CalibratedFile.model_validate(content).model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(plain, sort_keys=False, width=110, default_flow_style=None)
