"""The widgets of dojang. Nothing is imported here: each screen pays only for what it shows."""
