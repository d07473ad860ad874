"""CIFAR-10 experiments in PyTorch Lightning, composed by Hydra."""

__version__ = "0.1.0"
