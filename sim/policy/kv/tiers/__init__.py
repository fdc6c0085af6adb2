"""Tiers of memory under the prefix cache in HBM: what each keeps, what moves, and what is computed anew."""
