"""Search hyperparameters with Optuna: definition and space say what, study how, outcome and best what was found."""
