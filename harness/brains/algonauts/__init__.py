"""Subjects of the Algonauts 2023 challenge."""
