"""A backbone under a classification head, opened to training as the method says."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.sections import LoraConfig, MethodConfig

if TYPE_CHECKING:
    from peft import PeftModel
else:
    # importing peft takes seconds, and most methods have no adapters
    PeftModel = Any


class TunedModel(nn.Module):
    """Backbone and linear head; parameters that stay fixed have no gradient.

    Attributes
    ----------
    backbone : Backbone
        With adapters inside, where the method has them.
    head : nn.Linear
    """

    def __init__(self, backbone: Backbone, head: nn.Linear, adapted: PeftModel | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._adapted = (adapted,)  # in a tuple: its parameters are the backbone's, not others

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_classes"]:
        """Logits."""
        return self.head(self.backbone(images))

    def train(self, mode: bool = True) -> TunedModel:
        """As in torch, but an encoder that does not change is always in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def changing_state(self) -> dict[str, Tensor]:
        """What fine-tuning may change, by name: trained parameters and buffers; what a snapshot stores."""
        fixed = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        return {name: tensor.detach() for name, tensor in self.state_dict().items() if name not in fixed}

    def load_changing_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `changing_state` gave; any other set of names or shapes raises RuntimeError."""
        expected = self.changing_state()
        if expected.keys() != state.keys():
            different = sorted(expected.keys() ^ state.keys())
            raise RuntimeError(f"names differ: {', '.join(different[:5])}")
        self.load_state_dict(state, strict=False)

    def merged_backbone(self) -> Backbone:
        """The backbone as it is now, on its own: a copy, adapters merged into its weights."""
        backbone = copy.deepcopy(self.backbone)
        (adapted,) = self._adapted
        if adapted is not None:
            # merging in place would drift: the copy is merged
            backbone.encoder = copy.deepcopy(adapted).merge_and_unload()
        return backbone.requires_grad_(False).eval()


def tune(backbone: Backbone, n_classes: int, method: MethodConfig, seed: int) -> TunedModel:
    """Open a copy of a backbone to training.

    Parameters
    ----------
    backbone : Backbone
        As pretrained; not changed.
    n_classes : int
        Width of the new head, which starts at zero: every class is equally likely.
    method : MethodConfig
    seed : int
        Of the adapters' initialisation.

    Raises
    ------
    InputError
        Where `method.targets` names no module of this backbone.
    """
    backbone = copy.deepcopy(backbone).requires_grad_(method.name == "full")
    # no random initialisation first: the caller's randomness is left alone
    head = nn.utils.skip_init(nn.Linear, backbone.n_features, n_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    adapted = None
    if isinstance(method, LoraConfig):
        from harness.methods.lora import add_adapters

        adapted = add_adapters(backbone, method, seed)
    return TunedModel(backbone, head, adapted)
