"""numpy arrays as Arrow columns: no copy, and no pandas.

`pyarrow.array(values)` imports pandas to find out whether `values` is one of its objects, which costs more
than writing most runs. Buffers don't.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(values: NDArray[np.generic], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Returns a column over the memory of `values`; null where `valid` is False."""
    flat = np.ascontiguousarray(values)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(flat.dtype), len(flat), [_bitmap(valid), pa.py_buffer(flat)]
    )


def floats(values: NDArray[np.float64]) -> pa.Array:
    """Returns a column that is null where `values` is nan: what has not happened."""
    missing = np.isnan(values)
    return numbers(values, ~missing if missing.any() else None)


def flags(values: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Returns a boolean column; null where `valid` is False."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [_bitmap(valid), _bitmap(values)])


def categories(codes: NDArray[np.integer], names: Sequence[str]) -> pa.Array:
    """Returns a column of ``names[code]``; null where a code is negative."""
    known = codes >= 0
    index = numbers(codes.astype(np.int32), None if known.all() else known)
    return pa.DictionaryArray.from_arrays(index, _strings(names))


def texts(values: NDArray[np.object_]) -> pa.Array:
    """Returns a column of strings; null where a string is empty."""
    if not values.any():
        return pa.nulls(len(values), pa.string())
    return _strings(values.tolist(), _bitmap(values.astype(bool)))


def _strings(values: Sequence[str], validity: pa.Buffer | None = None) -> pa.Array:
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    data = pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), data, validity)


def _bitmap(values: NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if values is None else pa.py_buffer(np.packbits(values, bitorder="little"))
