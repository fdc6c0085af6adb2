"""What is decided: batches, blocks, routes. Decides, and never waits."""
