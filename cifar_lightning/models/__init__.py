"""Architectures: plain nn.Modules, independent of training and data sets."""
