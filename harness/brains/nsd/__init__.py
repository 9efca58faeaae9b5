"""The Natural Scenes Dataset (Allen et al. 2022, Nature Neuroscience 25:116), from its files as published."""
