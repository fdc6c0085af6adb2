"""What a tier evicts first: one policy per file, all behind `base.Eviction`."""
