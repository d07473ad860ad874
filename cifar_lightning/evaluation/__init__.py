"""A trained network in use: predictions, test metrics, export, inspection."""
