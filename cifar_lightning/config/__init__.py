"""Compose a config, check it, and say what each of its keys decides."""
