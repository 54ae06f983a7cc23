"""The training engine of dojang. Light at import: torch and its friends load inside `engine.training` only."""
