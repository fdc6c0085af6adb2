"""Named random streams: each consumer has its own, so that changing one never reshuffles another."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Returns the generator that belongs to `name` under `seed`.

    The same pair always gives the same numbers, on every machine: the name enters as its CRC-32, not as
    Python's `hash`, which differs from process to process.
    """
    key = zlib.crc32(name.encode())
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key,)))
