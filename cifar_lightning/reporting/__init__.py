"""Tables, figures, pages and files from plain numbers; knows nothing of training."""
