"""Without a GPU, Triton's interpreter runs the launches; it is chosen before any kernel is defined."""

import importlib.util
import os

if importlib.util.find_spec("torch") is not None:
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
