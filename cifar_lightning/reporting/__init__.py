"""Tables, figures and files made from plain numbers."""
