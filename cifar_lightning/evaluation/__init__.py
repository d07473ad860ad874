"""Use a trained network: predictions, test metrics, export, inspection."""
