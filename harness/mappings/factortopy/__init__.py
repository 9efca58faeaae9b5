"""FactorTopy (Yang, Gee and Shi, CVPR 2024): model, selectors, sampling, fit, conformance."""
