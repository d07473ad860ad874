"""Benchmarks against plain PyTorch: `python -m benchmarks.<name>`, recorded in RESULTS.md."""
