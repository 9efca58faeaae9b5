"""The commands of `palimpsest`, one module each: arguments, help and output."""
