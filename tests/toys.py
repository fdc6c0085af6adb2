"""Small stand-ins that tests share: step models whose cost is worked out in the head."""

from __future__ import annotations

from dataclasses import dataclass

from simllm.hwmodels.step import DecodeGroup, DecodeLine, StepCost, StepShape


@dataclass(frozen=True)
class ToyStepModel:
    """A step costs base + prefill tokens + decodes + context, each times its own price [s].

    With `knot` > 0, context beyond `knot` tokens in all costs `context_s` once more (a roofline's kink).
    """

    base_s: float = 0.010
    token_s: float = 0.0
    decode_s: float = 0.0
    context_s: float = 0.0
    knot: int = 0
    terms: tuple[str, ...] = ("base", "tokens", "context")

    def _context_cost(self, context: int) -> float:
        beyond = max(context - self.knot, 0) if self.knot else 0
        return self.context_s * (context + beyond)

    def predict(self, shape: StepShape) -> StepCost:
        prefill = sum(chunk.query_len * chunk.count for chunk in shape.chunks)
        decodes = sum(group.count for group in shape.decodes)
        context = sum(group.sum_context for group in shape.decodes)
        tokens_s = prefill * self.token_s + decodes * self.decode_s
        context_s = self._context_cost(context)
        return StepCost(self.base_s + tokens_s + context_s, (self.base_s, tokens_s, context_s), "toy")

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        _, num_decodes, sum_context, _ = decodes
        slope_s, num_steps = num_decodes * self.context_s, max_steps
        if self.knot and sum_context >= self.knot:
            slope_s *= 2
        elif self.knot:
            num_steps = min(max_steps, (self.knot - sum_context) // num_decodes + 1)
        tokens_s, context_s = num_decodes * self.decode_s, self._context_cost(sum_context)
        return DecodeLine(
            self.base_s + tokens_s + context_s,
            slope_s,
            num_steps,
            (self.base_s, tokens_s, context_s),
            (0.0, 0.0, slope_s),
            "toy",
        )
