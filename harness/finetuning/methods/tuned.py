"""A backbone under a classification head, opened to training as the method says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones import Backbone
from harness.config import (
    AllWeightsConfig,
    BitFitConfig,
    FlypConfig,
    LoraConfig,
    MethodConfig,
)
from harness.finetuning.methods.class_texts import ClassTexts
from harness.storage import InputError

if TYPE_CHECKING:
    from peft import PeftModel

    from tasks import Task
else:
    # importing peft or datasets takes seconds, and most methods have no adapters
    PeftModel = Task = Any


class TunedModel(nn.Module):
    """Backbone and linear head; parameters that stay fixed have no gradient.

    Attributes
    ----------
    backbone : Backbone
        With adapters inside, where the method has them.
    head : nn.Linear or nn.ModuleList
        With `texts` not trained, but made of them. Of several tasks, a list of heads, of which one is in use.
    texts : ClassTexts or None
        The classes as sentences, where a text tower is trained too.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Linear | nn.ModuleList,
        adapted: PeftModel | None,
        texts: ClassTexts | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.texts = texts
        self._adapted = (adapted,)  # in a tuple: its parameters are the backbone's, not others
        self._fixed = {name for name, part in self.named_parameters() if not part.requires_grad}
        self._place = 0
        self.rebuild_head()

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_classes"]:
        """Logits."""
        return self.classify(self.backbone(images))

    def classify(self, features: Float[Tensor, "n_images n_channels"]) -> Float[Tensor, "n_images n_classes"]:
        """Logits of the backbone's features, by the head in use."""
        return self.current_head(features if self.texts is None else functional.normalize(features, dim=1))

    @property
    def heads(self) -> list[nn.Linear]:
        """The heads of all tasks, in order."""
        heads = self.head if isinstance(self.head, nn.ModuleList) else [self.head]
        return [head for head in heads if isinstance(head, nn.Linear)]

    @property
    def current_head(self) -> nn.Linear:
        """The head in use."""
        return self.heads[self._place]

    @property
    def n_classes(self) -> int | list[int]:
        """Width of the head; of several tasks, of every one in order."""
        widths = [head.out_features for head in self.heads]
        return widths if isinstance(self.head, nn.ModuleList) else widths[0]

    def choose_head(self, place: int) -> None:
        """Use the head of one of several tasks, counted from 0; `open` then opens no other."""
        self._place = place
        if self.texts is not None:
            self.texts.choose(place)

    def rebuild_head(self) -> None:
        """Make every head of the text tower as it is now, where there is one."""
        if self.texts is not None:
            for place, head in enumerate(self.heads):
                head.weight.data.copy_(self.texts.head(place))

    def train(self, mode: bool = True) -> TunedModel:
        """As in torch, but what has only fixed parameters is always in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def open(self, head_only: bool = False) -> None:
        """Give gradients to what the method trains, or of that to the head only; to no other task's head."""
        for name, parameter in self.named_parameters():
            wanted = name.startswith("head.") or not head_only
            parameter.requires_grad_(wanted and name not in self._fixed)
        for head in self.heads:
            if head is not self.current_head:
                head.requires_grad_(False)

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """Parameters of the encoder that are trained, by their names there."""
        encoder = self.backbone.encoder
        return {name: part for name, part in encoder.named_parameters() if part.requires_grad}

    def parameters_by_layer(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by the layer they are of: those of the backbone, ``head``, and ``texts`` of FLYP."""
        layers = self.backbone.parameter_layers()
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            layer = layers.get(name.removeprefix("backbone.encoder."), name.partition(".")[0])
            found.setdefault(layer, []).append(parameter)
        return found

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Depth of a parameter by its name, the head on top; where timm looks for it in its own networks."""
        depths = {f"backbone.encoder.{name}": depth for name, depth in self.backbone.depths().items()}
        above = max(depths.values()) + 1
        return lambda name: depths.get(name, above)

    def changing_state(self) -> dict[str, Tensor]:
        """What fine-tuning may change, by name: trained parameters and buffers; what a snapshot stores."""
        return {name: part.detach() for name, part in self.state_dict().items() if name not in self._fixed}

    def load_changing_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `changing_state` gave; any other set of names or shapes raises RuntimeError."""
        expected = self.changing_state()
        if expected.keys() != state.keys():
            different = sorted(expected.keys() ^ state.keys())
            raise RuntimeError(f"names differ: {', '.join(different[:5])}")
        self.load_state_dict(state, strict=False)
        self.rebuild_head()

    def merged_backbone(self) -> Backbone:
        """The backbone as it is now, on its own: a copy, adapters merged into its weights."""
        backbone = copy.deepcopy(self.backbone)
        (adapted,) = self._adapted
        if adapted is not None:
            # merging in place would drift: the copy is merged
            backbone.encoder = copy.deepcopy(adapted).merge_and_unload()
        return backbone.requires_grad_(False).eval()


def tune(
    backbone: Backbone,
    n_classes: int | Sequence[int],
    method: MethodConfig,
    seed: int,
    task: Task | Sequence[Task] | None = None,
) -> TunedModel:
    """Open a copy of a backbone to training.

    Parameters
    ----------
    backbone : Backbone
        As pretrained; not changed.
    n_classes : int or sequence of int
        Width of the new head, which starts at zero: every class is equally likely. Of several tasks, of every
        one: each has its own.
    method : MethodConfig
    seed : int
        Of the adapters' initialisation.
    task : Task or sequence of Task, optional
        Whose classes FLYP reads as sentences; no other method needs it.

    Raises
    ------
    InputError
        Where `method.targets` names no module of this backbone, it has no blocks to freeze as wanted, no
        bias, or no text tower where one is needed.
    """
    backbone = copy.deepcopy(backbone).requires_grad_(isinstance(method, AllWeightsConfig | FlypConfig))
    widths = [n_classes] if isinstance(n_classes, int) else list(n_classes)
    heads = [_make_head(backbone.n_features, width) for width in widths]
    head = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
    adapted, texts = None, None
    if isinstance(method, AllWeightsConfig):
        _freeze_blocks(backbone, method.frozen_blocks)
    elif isinstance(method, BitFitConfig):
        _open_biases(backbone)
    elif isinstance(method, FlypConfig):
        texts = _open_texts(backbone, [*task] if isinstance(task, Sequence) else [task])
        head.requires_grad_(False)
    elif isinstance(method, LoraConfig):
        from harness.finetuning.methods.lora import add_adapters

        adapted = add_adapters(backbone, method, seed)
    return TunedModel(backbone, head, adapted, texts)


def _make_head(n_features: int, n_classes: int) -> nn.Linear:
    # no random initialisation first: the caller's randomness is left alone
    head = nn.utils.skip_init(nn.Linear, n_features, n_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _freeze_blocks(backbone: Backbone, n_frozen: int) -> None:
    if n_frozen == 0:
        return
    depths = backbone.depths()
    n_blocks = max(depths.values())
    if n_frozen >= n_blocks:
        raise InputError(
            f"method.frozen_blocks: found {n_frozen}, accepted: at most {n_blocks - 1}, "
            f"as this backbone has {n_blocks} blocks and one has to be trained"
        )
    for name, parameter in backbone.encoder.named_parameters():
        parameter.requires_grad_(depths[name] > n_frozen)


def _open_biases(backbone: Backbone) -> None:
    names = dict(backbone.encoder.named_parameters())
    biases = [parameter for name, parameter in names.items() if name.endswith("bias")]
    if not biases:
        raise InputError("method: found bitfit with a backbone that has no bias, accepted: one that has")
    for parameter in biases:
        parameter.requires_grad_(True)


def _open_texts(backbone: Backbone, tasks: Sequence[Task | None]) -> ClassTexts:
    if backbone.text is None:
        raise InputError(
            "method: found flyp with a backbone that has no text tower, "
            "accepted: a contrastive one of open_clip, such as backbone=mini_clip"
        )
    sentences = []
    for task in tasks:
        if task is None or not task.templates:
            found = f"method: found flyp with task {'none' if task is None else task.name}"
            raise InputError(f"{found}, accepted: a task whose classes texts can say")
        sentences.append((task.class_names, task.templates))
    texts = ClassTexts(backbone.text.copy_to_train(), *sentences[0])
    for names, templates in sentences[1:]:
        texts.add(names, templates)
    return texts
