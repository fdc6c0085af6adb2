"""Measures operations on a GPU and fits the models of `hwmodels` to them.

`plan` says what to measure, `sweep` measures it, `fit` and `validate` need no GPU. torch and triton load only
where something is measured.
"""
