"""Replays what a real engine did and says how far off the simulation is: `simllm validate`."""

from .replay import GivenSettings
from .summary import summaries, summary_dict
from .validation import Validation, validate_run

__all__ = ["GivenSettings", "Validation", "summaries", "summary_dict", "validate_run"]
