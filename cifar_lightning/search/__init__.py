"""Searches over configs with Optuna: what is searched (definition, space), how (study), and what came of it."""
