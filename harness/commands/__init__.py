"""One module per command: its arguments, its help, what it prints."""
