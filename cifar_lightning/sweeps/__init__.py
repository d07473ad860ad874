"""Many runs from one command: their folders, processes, states and summary."""
