"""A backbone with a classification head, opened to training by a method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from harness.backbones import Backbone
from harness.config import (
    HeadConfig,
    MethodConfig,
)
from harness.finetuning.methods.class_texts import ClassTexts
from harness.finetuning.methods.opening import (
    Added,
    Opening,
)
from harness.finetuning.methods.records import (
    METHODS,
    Method,
)

if TYPE_CHECKING:
    from peft import PeftModel

    from tasks import Task
else:
    # peft and datasets take seconds to import, and few methods have adapters
    PeftModel = Task = Any


@dataclass(frozen=True)
class Tuning:
    """What differs between models of one backbone and head.

    Attributes
    ----------
    trains_earlier_heads : bool
        Whether the heads of tasks before the current one are trained too.
    unit_length : bool
        Whether heads take features of unit length.
    frozen_head : bool
        Whether heads stay as they start.
    frozen_statistics : bool
        Whether batch norm keeps its statistics in training.
    """

    trains_earlier_heads: bool = False
    unit_length: bool = False
    frozen_head: bool = False
    frozen_statistics: bool = False


class TunedModel(nn.Module):
    """Backbone and linear head; fixed parameters have no gradient.

    Attributes
    ----------
    backbone : Backbone
        With the method's adapters, if any.
    head : nn.Linear or nn.ModuleList
        A list of heads for several tasks; one of them is current. With `texts`, heads are built from the text
        tower instead of trained.
    texts : ClassTexts or None
        Class names as sentences, for methods that train the text tower.
    tuning : Tuning
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Linear | nn.ModuleList,
        adapted: PeftModel | None,
        texts: ClassTexts | None = None,
        tuning: Tuning = Tuning(),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.texts = texts
        self.tuning = tuning
        self._adapted = (adapted,)  # in a tuple: its parameters are the backbone's, not others
        self._fixed = {name for name, part in self.named_parameters() if not part.requires_grad}
        self._place = 0
        self.rebuild_head()

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_classes"]:
        """Compute logits."""
        return self.classify(self.backbone(images))

    def classify(
        self, features: Float[Tensor, "n_images n_channels"], place: int | None = None
    ) -> Float[Tensor, "n_images n_classes"]:
        """Compute logits from the backbone's features, of the current head or of that of a task by index."""
        head = self.heads[self._place if place is None else place]
        return head(functional.normalize(features, dim=1) if self.normalises else features)

    @property
    def normalises(self) -> bool:
        """Whether heads take features of unit length."""
        return self.texts is not None or self.tuning.unit_length

    @property
    def heads(self) -> list[nn.Linear]:
        """The heads of all tasks, in order."""
        heads = self.head if isinstance(self.head, nn.ModuleList) else [self.head]
        return [head for head in heads if isinstance(head, nn.Linear)]

    @property
    def adapted(self) -> PeftModel | None:
        """The encoder with its adapters, as peft has it; None without adapters."""
        return self._adapted[0]

    @property
    def current_head(self) -> nn.Linear:
        """The current task's head."""
        return self.heads[self._place]

    @property
    def place(self) -> int:
        """Index of the current task, from 0."""
        return self._place

    @property
    def n_classes(self) -> int | list[int]:
        """Width of the head, or of every head for several tasks."""
        widths = [head.out_features for head in self.heads]
        return widths if isinstance(self.head, nn.ModuleList) else widths[0]

    def choose_head(self, place: int) -> None:
        """Make a task's head current, by its index from 0; `open` then opens no other."""
        self._place = place
        if self.texts is not None:
            self.texts.choose(place)

    def rebuild_head(self) -> None:
        """Rebuild every head from the current text tower, if there is one."""
        if self.texts is not None:
            for place, head in enumerate(self.heads):
                head.weight.data.copy_(self.texts.head(place))

    def train(self, mode: bool = True) -> TunedModel:
        """Set the mode as in torch, but keep modules with only fixed parameters in evaluation mode.

        So are batch norms whose statistics are frozen.
        """
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
            if self.tuning.frozen_statistics and isinstance(module, _BatchNorm):
                module.eval()
        return self

    def open(self, head_only: bool = False) -> None:
        """Enable gradients for all that the method trains, or for heads only."""
        for name, parameter in self.named_parameters():
            wanted = name.startswith("head.") or not head_only
            parameter.requires_grad_(wanted and name not in self._fixed)
        for place, head in enumerate(self.heads):
            other = place > self._place or (place < self._place and not self.tuning.trains_earlier_heads)
            if other or self.tuning.frozen_head:
                head.requires_grad_(False)

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """Return the encoder's trained parameters, by their names in the encoder."""
        encoder = self.backbone.encoder
        return {name: part for name, part in encoder.named_parameters() if part.requires_grad}

    def parameters_by_layer(self) -> dict[str, list[nn.Parameter]]:
        """Group all parameters by layer: the backbone's layers, ``head``, and ``texts`` if there are any."""
        layers = self.backbone.parameter_layers()
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            layer = layers.get(name.removeprefix("backbone.encoder."), name.partition(".")[0])
            found.setdefault(layer, []).append(parameter)
        return found

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return a function from a parameter's name to its depth, the head on top; timm calls this."""
        depths = {f"backbone.encoder.{name}": depth for name, depth in self.backbone.depths().items()}
        above = max(depths.values()) + 1
        return lambda name: depths.get(name, above)

    def changing_state(self) -> dict[str, Tensor]:
        """Return all that fine-tuning may change, by name: trained parameters and buffers."""
        return {name: part.detach() for name, part in self.state_dict().items() if name not in self._fixed}

    def load_changing_state(self, state: dict[str, Tensor]) -> None:
        """Restore a `changing_state`; other names or shapes raise RuntimeError."""
        expected = self.changing_state()
        if expected.keys() != state.keys():
            different = sorted(expected.keys() ^ state.keys())
            raise RuntimeError(f"names differ: {', '.join(different[:5])}")
        self.load_state_dict(state, strict=False)
        self.rebuild_head()

    def merged_backbone(self) -> Backbone:
        """Copy the current backbone, with adapters merged into its weights."""
        copied: dict[int, object] = {}
        if self.adapted is not None:
            # merging in place would make weights drift
            copied[id(self.backbone.encoder)] = copy.deepcopy(self.adapted).merge_and_unload()
        backbone = copy.deepcopy(self.backbone, copied)
        return backbone.requires_grad_(False).eval()


def tune(
    backbone: Backbone,
    n_classes: int | Sequence[int],
    method: MethodConfig,
    seed: int,
    task: Task | Sequence[Task] | None = None,
) -> TunedModel:
    """Copy a backbone, add heads and open both to training.

    Parameters
    ----------
    backbone : Backbone
        As pretrained; left unchanged.
    n_classes : int or sequence of int
        Width of the new head, which is zero-initialised, so all classes are equally likely (`start_heads`
        sets others). A sequence: one head per task.
    method : MethodConfig
    seed : int
        Seeds the adapters' initialisation.
    task : Task or sequence of Task, optional
        Tasks whose class names the method needs (`Method.needs_texts`).

    Raises
    ------
    InputError
        If `method.targets` matches no module of this backbone, or the backbone lacks the blocks, biases or
        text tower that the method needs.
    """
    tasks = [*task] if isinstance(task, Sequence) else [task]
    opening = Opening(copy.deepcopy(backbone).requires_grad_(False), method, seed, tasks)
    widths = [n_classes] if isinstance(n_classes, int) else list(n_classes)
    heads = [_make_head(backbone.n_features, width) for width in widths]
    head = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
    record = METHODS[method.name]
    added: Added = record.load("opens")(opening)
    if added.texts is not None:
        head.requires_grad_(False)
    return TunedModel(opening.backbone, head, added.adapted, added.texts, _choose_tuning(method, record))


def _choose_tuning(method: MethodConfig, record: Method) -> Tuning:
    if not isinstance(method, HeadConfig):
        return Tuning()
    return Tuning(
        trains_earlier_heads=record.replays,
        unit_length=method.head == "zero_shot",
        frozen_head=method.frozen_head,
        frozen_statistics=method.batch_norm == "frozen",
    )


def _make_head(n_features: int, n_classes: int) -> nn.Linear:
    # without a random initialisation, which would advance the caller's random state
    head = nn.utils.skip_init(nn.Linear, n_features, n_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
