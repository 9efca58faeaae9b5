"""`Task`, which lives beside this package."""

from tasks import Task

__all__ = ["Task"]
