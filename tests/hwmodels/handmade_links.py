"""A link fit with round numbers, that tests of link models share."""

from __future__ import annotations

from simllm.hwmodels.link_profile import LinkEntry


def entry(num_gpus: int = 2, implementation: str = "nccl", **changes: object) -> LinkEntry:
    """5 us for the first byte, 1 GB/s up to 1,000 B, 4 GB/s beyond; measured from 100 B to 1 MB."""
    content: dict[str, object] = {
        "collective": "all_reduce",
        "implementation": implementation,
        "num_gpus": num_gpus,
        "mode": "graph",
        "latency_s": coefficient(5e-6),
        "regimes": [
            {"from_bytes": 0, "bytes_per_s": coefficient(1e9)},
            {"from_bytes": 1000, "bytes_per_s": coefficient(4e9)},
        ],
        "valid_bytes": [100, 1e6],
        "num_samples": 20,
        "held_out": {"median": 0.01, "p90": 0.02, "worst": 0.03, "num_samples": 18},
    }
    return LinkEntry.model_validate(content | changes)


def coefficient(value: float) -> dict[str, float]:
    return {"value": value, "low": value / 2, "high": value * 2}
