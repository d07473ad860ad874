"""Search hyperparameters: with Optuna, and a learning rate or a batch size by a few steps."""
