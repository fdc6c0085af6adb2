"""Measures operations on a GPU and fits the models of `hwmodels` to them.

`plan` says what to measure, `sweep` measures it; `fit`, `validate` and `report` need no GPU; `links_*` is
about what lies between GPUs; `command` holds `simllm calibrate`. torch and triton load only to measure.
"""
