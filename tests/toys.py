"""Small stand-ins that tests share: step models whose cost is worked out in the head."""

from __future__ import annotations

from dataclasses import dataclass

from simllm.hwmodels.step import DecodeGroup, DecodeLine, StepCost, StepShape


@dataclass(frozen=True)
class ToyStepModel:
    """A step costs base + prefill tokens + decodes + context, each times its own price [s].

    With `knot` > 0, context beyond `knot` tokens in all costs `context_s` once more (a roofline's kink).
    `launch_s`: how long the CPU launches a step with prompts. `limited`: share of a prompt's tokens' time
    that the power limit adds.
    """

    base_s: float = 0.010
    token_s: float = 0.0
    decode_s: float = 0.0
    context_s: float = 0.0
    knot: int = 0
    launch_s: float = 0.0
    limited: float = 0.0
    terms: tuple[str, ...] = ("base", "tokens", "context", "launch", "power_limit")

    def _context_cost(self, context: int) -> float:
        beyond = max(context - self.knot, 0) if self.knot else 0
        return self.context_s * (context + beyond)

    def predict(self, shape: StepShape) -> StepCost:
        prefill = sum(chunk.query_len * chunk.count for chunk in shape.chunks)
        decodes = sum(group.count for group in shape.decodes)
        context = sum(group.sum_context for group in shape.decodes)
        tokens_s = prefill * self.token_s + decodes * self.decode_s
        context_s = self._context_cost(context)
        limited_s = self.limited * prefill * self.token_s
        busy_s, cpu_s = self.base_s + tokens_s + context_s + limited_s, self.launch_s if prefill else 0.0
        waiting_s = max(0.0, cpu_s - busy_s)
        terms = (self.base_s, tokens_s, context_s, waiting_s, limited_s)
        return StepCost(busy_s + waiting_s, terms, "toy", cpu_s=cpu_s, waiting_s=waiting_s)

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
            (self.base_s, tokens_s, context_s, 0.0, 0.0),
            (0.0, 0.0, slope_s, 0.0, 0.0),
            "toy",
        )
