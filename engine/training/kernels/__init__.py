"""Families of models: each builds a `Session` from a spec, so that one loop trains them all."""
