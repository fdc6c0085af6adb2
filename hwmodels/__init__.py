"""Pure arithmetic of hardware and models: bytes, FLOPs and seconds, no clock and no requests."""
