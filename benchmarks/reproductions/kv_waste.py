"""PagedAttention's figure 2: the share of the KV memory in use that holds tokens, four ways to lay it out."""

from __future__ import annotations

from functools import cache, partial

from .lengths import SHAREGPT_ANSWERS, SHAREGPT_PROMPTS
from .row import Row
from .runs import Data, poisson, pool, run, synthetic

SOURCE = "https://arxiv.org/abs/2309.06180 (figure 2)"
# Source: table 1 of the paper: 15.7K slots of OPT-13B on an A100-40GB.
NUM_SLOTS = 15_701
# Useful share [%] by reservation; None is vLLM's paging.
USEFUL = {"max": 20.4, "pow2": 26.8, "oracle": 38.2, None: 96.3}
REQUEST_RATE = 4.0


@cache
def _shares(reservation: str | None) -> Data:
    workload = synthetic(600, poisson(REQUEST_RATE), SHAREGPT_PROMPTS, SHAREGPT_ANSWERS)
    if reservation is None:
        chosen = pool("opt-13b", "a100-40gb", {"kind": "vllm_v0"}, kv={"num_gpu_blocks": NUM_SLOTS // 16 + 1})
    else:
        orca = {"kind": "orca", "reservation": reservation, "max_batch_size": 256}
        layout = {"kind": "contiguous", "allocator": "buddy", "reserve": reservation}
        kv = {"num_gpu_blocks": NUM_SLOTS, "layout": layout}
        chosen = pool("opt-13b", "a100-40gb", orca, kv=kv)
    shares: Data = run(workload, chosen).summary()["kv_waste"]
    return shares


def _useful(reservation: str | None) -> float:
    return 100 * float(_shares(reservation)["useful_share"])


def _waste(reservation: str | None) -> float:
    return 100 * float(_shares(reservation)["waste_share"])


def _row(
    name: str,
    claim: str,
    engine: str,
    published: tuple[float, float],
    reservation: str | None,
    *,
    is_waste: bool = False,
) -> Row:
    return Row(
        id=f"kv-{name}",
        claim=claim,
        source="https://blog.vllm.ai/2023/06/20/vllm.html" if is_waste else SOURCE,
        model="opt-13b",
        device="a100-40gb",
        engine=engine,
        workload=f"600 Poisson requests at {REQUEST_RATE:g}/s, lengths as in ShareGPT, 15.7K slots",
        metric="wasted share of KV memory [%]" if is_waste else "useful share of KV memory [%]",
        published=published,
        measure=partial(_waste if is_waste else _useful, reservation),
    )


ROWS = (
    *(
        _row(
            f"useful-{reservation or 'paged'}",
            f"useful share of KV memory, {reservation or 'paged'}",
            "vLLM V0" if reservation is None else f"Orca ({reservation}), buddy allocator",
            (share, share),
            reservation,
        )
        for reservation, share in USEFUL.items()
    ),
    *(
        _row(
            f"waste-{reservation}",
            f"existing systems waste 60 to 80 % of the memory ({reservation})",
            f"Orca ({reservation}), buddy allocator",
            (60.0, 80.0),
            reservation,
            is_waste=True,
        )
        for reservation in ("max", "pow2", "oracle")
    ),
    _row("waste-paged", "less than 4 % of the memory wasted", "vLLM V0", (0.0, 4.0), None, is_waste=True),
)
