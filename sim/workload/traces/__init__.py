"""Loaders, one file per public format; each returns a `Demand` in the order of its file."""
