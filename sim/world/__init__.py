"""What takes time: engines, arrivals and links on a SimPy clock. Waits, and never decides."""
