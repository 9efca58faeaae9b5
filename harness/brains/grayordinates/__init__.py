"""Responses on grayordinates, in CIFTI files."""
