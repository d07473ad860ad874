"""Speed, side by side with plain PyTorch: `python -m benchmarks.<name>`, recorded in RESULTS.md."""
