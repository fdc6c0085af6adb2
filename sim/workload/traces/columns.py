"""Arrow columns as numpy arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def int_column(array: pa.Array) -> NDArray[np.int64]:
    """Returns a copy of an Arrow array of 64-bit integers without nulls."""
    # Arrow's own to_numpy imports pandas, which takes longer than to read an hour of requests.
    return np.frombuffer(array.buffers()[1], np.int64, len(array), array.offset * 8).copy()
