"""The simulator: demand (`workload`), decisions (`policy`), time (`world`) and what is handed out (`outcome`)."""
