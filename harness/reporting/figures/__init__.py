"""Curves over optimizer steps."""
