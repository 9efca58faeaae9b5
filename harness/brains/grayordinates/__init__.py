"""Responses on grayordinates, as CIFTI files."""
