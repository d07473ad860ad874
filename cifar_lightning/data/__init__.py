"""CIFAR-10 (and the embedded digits) from archive to batches."""
