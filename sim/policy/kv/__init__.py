"""KV-cache blocks: who holds how many, what is cached, what is evicted. Decides, and never waits."""
