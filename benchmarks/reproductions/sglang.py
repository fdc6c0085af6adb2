"""SGLang's RadixAttention: hit rates, and how near they come to those of an endless cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from .row import Row
from .runs import Data, pool, run

SOURCE = "https://arxiv.org/abs/2312.07104"
MODEL, DEVICE = "llama-2-7b", "a10g"
ENDLESS = 4_000_000  # blocks of one token
# Sizes of the tasks, from their data sets; the paper gives shots and turns only.
NUM_REQUESTS = 1500
CHAT_TURNS = 4


def _mmlu(random: np.random.Generator) -> pd.DataFrame:
    """5-shot MMLU: 57 subjects one after the other, five examples each before the question; one token out."""
    subjects = np.sort(random.integers(0, 57, NUM_REQUESTS))
    shots, own = random.integers(400, 1000, 57), random.integers(50, 200, NUM_REQUESTS)
    return _table(subjects, shots[subjects], own, np.ones(NUM_REQUESTS, dtype=int))


def _hellaswag(random: np.random.Generator) -> pd.DataFrame:
    """20-shot HellaSwag: twenty examples before every question, four endings of which are scored."""
    questions = np.repeat(random.integers(40, 100, NUM_REQUESTS // 4), 4)
    same = np.zeros(questions.size, dtype=int)
    table = _table(same, np.full(questions.size, 1700), questions, np.ones(questions.size, dtype=int))
    endings = random.integers(10, 40, questions.size)
    number = np.arange(questions.size)
    table["content"] = [
        f"0:1700;{1 + index // 4}:{question};{10**6 + index}:{ending}"
        for index, question, ending in zip(number, questions, endings, strict=True)
    ]
    table["prompt_tokens"] += endings
    return table


def _chat(random: np.random.Generator) -> pd.DataFrame:
    """Chats of four turns of 256 to 512 tokens, a second apart, answers of 4 to 8; one every 0.6 s."""
    num_chats = NUM_REQUESTS // CHAT_TURNS
    turns = random.integers(256, 513, (num_chats, CHAT_TURNS))
    rows = []
    for chat, turn in np.ndindex(num_chats, CHAT_TURNS):
        runs = [f"{chat * CHAT_TURNS + past}:{turns[chat, past]}" for past in range(turn + 1)]
        rows.append((0.6 * chat + turn, int(turns[chat, : turn + 1].sum()), ";".join(runs)))
    table = pd.DataFrame(sorted(rows), columns=["arrived_at", "prompt_tokens", "content"])
    return table.assign(output_tokens=random.integers(4, 9, len(table)))


def _table(prefixes: np.ndarray, shared: np.ndarray, own: np.ndarray, outputs: np.ndarray) -> pd.DataFrame:
    """Returns requests at once: each a shared prefix and tokens of its own."""
    content = [
        f"{prefix}:{tokens};{10**6 + index}:{rest}"
        for index, (prefix, tokens, rest) in enumerate(zip(prefixes, shared, own, strict=True))
    ]
    columns = {"arrived_at": 0.0, "prompt_tokens": shared + own, "output_tokens": outputs, "content": content}
    return pd.DataFrame(columns)


TASKS: dict[str, Callable[[np.random.Generator], pd.DataFrame]] = {
    "mmlu": _mmlu,
    "hellaswag": _hellaswag,
    "chat": _chat,
}


@cache
def _hit_rate(task: str, num_blocks: int | None = None) -> float:
    """Returns the share of prompt tokens found, of all that were looked up [%]."""
    scheduler: Data = {"kind": "sglang", "schedule_policy": "lpm", "chunked_prefill_size": 2048}
    kv = {} if num_blocks is None else {"num_gpu_blocks": num_blocks}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "requests.csv"
        TASKS[task](np.random.default_rng(0)).to_csv(path, index=False)
        workload = {"kind": "table", "path": str(path)}
        summary = run(workload, pool(MODEL, DEVICE, scheduler, kv=kv), run={"record_steps": False}).summary()
    return 100 * float(summary["cached_tokens"] / summary["total_input_tokens"])


def _share_of_best() -> float:
    return 100 * float(np.mean([_hit_rate(task) / _hit_rate(task, ENDLESS) for task in TASKS]))


def _row(
    name: str, claim: str, metric: str, published: tuple[float, float], measure: Callable[[], float]
) -> Row:
    return Row(
        id=f"sglang-{name}",
        claim=claim,
        source=SOURCE,
        model=MODEL,
        device=DEVICE,
        engine="SGLang, lpm",
        workload="5-shot MMLU, 20-shot HellaSwag, chats of 4 turns: 1,500 requests each, lengths of our own",
        metric=metric,
        published=published,
        measure=measure,
        explanation="The paper's figures as they are known; copies of it on the web differ from each other.",
    )


ROWS = (
    *(
        _row(
            f"hit-rate-{task}",
            f"50 to 99 % of the prompt tokens are found ({task})",
            "hit rate [%]",
            (50.0, 99.0),
            partial(_hit_rate, task),
        )
        for task in TASKS
    ),
    _row(
        "share-of-best",
        "cache-aware scheduling reaches 96 % of the best hit rate on average",
        "hit rate over that of an endless cache [%]",
        (96.0, 96.0),
        _share_of_best,
    ),
)
