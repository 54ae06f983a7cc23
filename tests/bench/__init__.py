"""Benchmarks: `python -m tests.bench` prints every figure the README quotes; tests never fail on a clock."""
