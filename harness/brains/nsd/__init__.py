"""The Natural Scenes Dataset (Allen et al. 2022, Nature Neuroscience 25:116), as published."""
