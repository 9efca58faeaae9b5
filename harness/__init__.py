"""Palimpsest: what a fine-tuned vision model forgets, and where inside it rewires."""
