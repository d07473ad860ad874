"""A run: build its objects, train, test and record; resume; processes."""
