"""Palimpsest: what a fine-tuned vision model forgets, and where inside it rewires.

    import harness

    backbone = harness.load_backbone("mini_clip")
    brain = harness.load_brain("simulated")
    mapping = harness.fit(backbone, brain)
    harness.plot.layers(mapping, brain).savefig("layers.png")

Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
