"""Into how many parts torch's FlashAttention-2 cuts the keys of a request."""

from __future__ import annotations

from math import ceil

# Its split kernel holds 64 rows and walks 128 keys at a time (256 if they have 64 dimensions); it runs where
# CTAs fill less than 0.8 of two per SM.
# Source: github.com/Dao-AILab/flash-attention, csrc/flash_attn/flash_api.cpp, num_splits_heuristic
FLASH_ROWS, FLASH_KEYS, FLASH_CTAS_PER_SM = 64, 128, 2
MAX_SPLITS = 128
_FILLED = 0.8
_EFFICIENCY = 0.85  # of the best split's, that the chosen one reaches


def flash_splits(num_ctas: int, num_keys: int, head_dim: int, num_sms: int) -> int:
    """Returns the fewest parts whose last wave of CTAs is nearly as full as the best split's."""
    slots, blocks = FLASH_CTAS_PER_SM * num_sms, ceil(num_keys / flash_keys(head_dim))
    if num_ctas >= _FILLED * slots:
        return 1
    eligible = [
        splits
        for splits in range(1, min(MAX_SPLITS, slots, blocks) + 1)
        if splits == 1 or ceil(blocks / splits) != ceil(blocks / (splits - 1))
    ]
    filled = {splits: num_ctas * splits / slots / ceil(num_ctas * splits / slots) for splits in eligible}
    return next(s for s in eligible if filled[s] >= _EFFICIENCY * max(filled.values()))


def flash_keys(head_dim: int) -> int:
    """Returns the keys that its split kernel walks at a time."""
    return FLASH_KEYS if head_dim > 64 else 2 * FLASH_KEYS
