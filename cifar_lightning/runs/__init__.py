"""A run: build its objects, train, test and record it; resume it; run it in several processes."""
