"""Real GPU kernels: one family per file, each with its torch oracle and its FLOPs and bytes.

A family's wrapper has three duties: check the shapes, allocate the output, launch. What a launch asks of the
hardware comes from `hwmodels.ops`, so the formula that predicts and the formula that profiles are one
function. Importing this package loads neither torch nor Triton; importing a family does.
"""
