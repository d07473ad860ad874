"""The commands, one short file each, and their one parser."""
