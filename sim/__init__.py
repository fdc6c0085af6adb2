"""The simulator: demand (`workload`), decisions (`policy`), time (`world`) and results (`outcome`)."""
