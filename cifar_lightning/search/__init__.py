"""Search hyperparameters with Optuna: definition, space, study and outcome."""
