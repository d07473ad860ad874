"""Checkpoint files: read, load, and what a file may ask for."""
