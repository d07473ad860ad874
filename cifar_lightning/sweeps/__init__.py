"""Many runs from one command: their folders, their processes, and the summary at the end."""
