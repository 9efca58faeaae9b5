"""Every voxel attends to the tokens of every layer: what it reads may move with what an image shows.

After "Transformer brain encoders explain human high-level visual responses" (Adeli, Sun and Kriegeskorte,
NeurIPS 2025): learned queries on the brain's side meet keys of the image's tokens, and a linear readout
follows. There a query belongs to an area or to a vertex; here to a voxel, as a fit is not told of areas.
Their layers are chosen beforehand or concatenated; here each voxel learns a distribution over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.config import AttentionConfig
from harness.mappings.factortopy.selectors import EVERY
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.training import (
    check_inputs,
    fit_model,
)
from harness.storage import InputError
from harness.tokens import LayerTokens

# what only one voxel's error moves has to come far in a few hundred steps
LAYER_RATE = 12.0
QUERY_RATE = 8.0


@dataclass(frozen=True)
class Reading:
    """What of the voxels' reading depends on no image.

    Attributes
    ----------
    layer : float tensor [n_voxels, n_layers]
        A distribution over layers.
    query : float tensor [n_voxels, n_channels]
        Scaled by 1/√n_channels.
    """

    layer: Float[Tensor, "n_voxels n_layers"]
    query: Float[Tensor, "n_voxels n_channels"]


class Attention(nn.Module):
    """Predict voxel responses by attention to the layer tokens of images.

    For voxel n with query q_n, layer ω_n = softmax of free logits, weights w_n, bias b_n; for layer l with
    tokens x_ls, one for each place s and the global one, key and value projections K_l, V_l to D channels
    (local and global each their own, no bias) and embeddings p_s of the places, shared by layers:

        a_nls = softmax over s of q_n · (K_l x_ls + p_s) / √D + log(n_places) [s global]
        y_n   = (1/D) Σ_l ω_nl Σ_s a_nls w_n · V_l x_ls + b_n

    Queries and layer logits start at zero: all layers are equal, the global token has half of the attention
    and all places share the other half.

    w_n meets the values before they are mixed, so no image's mixed value is held, and attention is
    computed anew in the backward pass, one layer at a time. With S = n_places + 1, a prediction costs
    4 · n_images · n_layers · n_voxels · S · D operations, a training step four times that, and memory is a
    few arrays [n_images, n_voxels, S]. With 12 layers, 2,000 voxels and 64 stimuli of 4 × 4 places to 32
    channels: 3 · 10⁹ operations and 9 MB an array; FactorTopy's cost has no factor S.

    Parameters
    ----------
    n_voxels : int
    layer_widths : sequence of int
        Number of token channels of every layer.
    n_channels : int
        D, of keys and of values.
    n_places : int
        Number of local tokens of an image.

    Raises
    ------
    InputError
        If there is no layer.
    """

    def __init__(self, n_voxels: int, layer_widths: Sequence[int], n_channels: int, n_places: int) -> None:
        super().__init__()
        if not layer_widths:
            raise InputError("layers: attention needs at least one layer, found none")

        def project() -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)

        self.local_key, self.global_key = project(), project()
        self.local_value, self.global_value = project(), project()
        self.place = nn.Parameter(torch.randn(n_places + 1, n_channels))
        self.query = nn.Parameter(torch.zeros(n_voxels, n_channels))
        self.layer_logits = nn.Parameter(torch.zeros(n_voxels, len(layer_widths)))
        bound = 1 / math.sqrt(n_channels)
        self.weight = nn.Parameter(torch.empty(n_voxels, n_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_voxels))

    def selectors(self, voxels: slice = EVERY) -> Reading:
        """What of every voxel, or some voxels, depends on no image; differentiable."""
        query = self.query[voxels] / math.sqrt(self.query.shape[1])
        return Reading(self.layer_logits[voxels].softmax(dim=1), query)

    def forward(
        self,
        local: Sequence[Float[Tensor, "n_images _ height width"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
        reading: Reading,
        voxels: slice = EVERY,
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict responses; `reading` is what `selectors(voxels)` gave."""
        weight = self.weight[voxels] / self.weight.shape[1]
        total: Tensor = self.bias[voxels]
        for index, (places, whole) in enumerate(zip(local, global_, strict=True)):
            read = checkpoint(
                self._read, index, places, whole, reading.query, weight,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
            total = total + reading.layer[:, index] * read
        return total

    def attend(
        self,
        index: int,
        local: Float[Tensor, "n_images n_channels height width"],
        global_: Float[Tensor, "n_images n_channels"],
        query: Float[Tensor, "n_voxels n_query_channels"],
    ) -> Float[Tensor, "n_images n_voxels n_tokens"]:
        """Attention of every voxel to the tokens of one layer: places row by row, then the global token."""
        keys = _project(self.local_key[index], self.global_key[index], local, global_) + self.place
        logits = query @ keys.transpose(1, 2)
        offset = logits.new_zeros(logits.shape[2])
        offset[-1] = math.log(logits.shape[2] - 1)
        return (logits + offset).softmax(dim=2)

    def regularizer(self, reading: Reading) -> Float[Tensor, ""]:
        """Negative entropy of the layer distributions (-1 to 0), averaged over voxels; 0 with one layer."""
        # where a share is so small that it is 0, the gradient of its entropy is infinite
        shares = reading.layer.clamp(min=torch.finfo(reading.layer.dtype).tiny)
        entropy = torch.special.entr(shares).sum(dim=1).mean()
        return -entropy / math.log(max(reading.layer.shape[1], 2))

    def _read(self, index: int, local: Tensor, global_: Tensor, query: Tensor, weight: Tensor) -> Tensor:
        values = _project(self.local_value[index], self.global_value[index], local, global_)
        return (self.attend(index, local, global_, query) * (weight @ values.transpose(1, 2))).sum(dim=2)


def _project(of_local: nn.Module, of_global: nn.Module, local: Tensor, global_: Tensor) -> Tensor:
    """[n_images, n_tokens, D]: places row by row, then the global token."""
    places = of_local(local.permute(0, 2, 3, 1)).flatten(1, 2)
    return torch.cat([places, of_global(global_)[:, None]], dim=1)


def fit_attention(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: AttentionConfig,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
    start: Mapping | None = None,
) -> Mapping:
    """Fit attention on the training stimuli and score it on the held-out ones.

    The training, the parameters and the errors are those of `factortopy.fit.fit`, but that queries learn
    `QUERY_RATE` and the layers' logits `LAYER_RATE` times faster than the projections.

    The mapping's space and scale are means of the attention over the training stimuli (`where_attended`):
    two voxels of one place may yet attend to it in different images.
    """
    check_inputs(tokens, responses, coords, split)

    def build(layer_widths: list[int]) -> Attention:
        return Attention(len(coords), layer_widths, config.n_channels, config.token_size**2)

    def rates(model: Attention) -> dict[nn.Parameter, float]:
        # as the model divides by D what the weights sum
        return {
            model.weight: float(config.n_channels),
            model.query: QUERY_RATE,
            model.layer_logits: LAYER_RATE,
        }

    fitted = fit_model(
        build, rates, tokens, responses, split, config, seed, bootstrap, device, progress, start
    )
    model = fitted.model
    batches = [fitted.tokens.take(batch) for batch in torch.from_numpy(split.train).split(config.batch_size)]
    space, scale = where_attended(model, batches)
    with torch.no_grad():
        layer = model.selectors().layer
    return Mapping(
        layers=tokens.layers,
        space=space.cpu().numpy(),
        layer=layer.cpu().numpy(),
        scale=scale.cpu().numpy(),
        weights=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        r2=fitted.r2,
        correlation=fitted.correlation,
        steps=fitted.steps,
        learned=fitted.learned(),
        family="attention",
    )


@torch.no_grad()
def where_attended(
    model: Attention, batches: Sequence[LayerTokens]
) -> tuple[Float[Tensor, "n_voxels 2"], Float[Tensor, " n_voxels"]]:
    """Mean place of the attention, and its share of the global token.

    With ā_ns the attention a_nls averaged over images and, by ω, over layers, and c_s the centre of token s
    (x, then y; the image's edges are -1 and 1):

        α_n = ā_n,global        u_n = Σ_s local ā_ns c_s / (1 − α_n)

    Attention that is spread has its mean nearer to the image's centre than where most of it is.

    Parameters
    ----------
    model : Attention
    batches : sequence of LayerTokens
        As the model was trained on; each is one forward pass.
    """
    reading = model.selectors()
    attended: Tensor = torch.zeros(1)
    for batch in batches:
        for index, (local, global_) in enumerate(zip(batch.local, batch.global_, strict=True)):
            found = model.attend(index, local, global_, reading.query).sum(dim=0)
            attended = attended.to(found) + reading.layer[:, index, None] * found
    attended = attended / attended.sum(dim=1, keepdim=True)
    height, width = batches[0].local[0].shape[2:]
    rows, columns = (torch.arange(n).to(attended) * 2 / n + 1 / n - 1 for n in (height, width))
    centres = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)
    near = attended[:, :-1]
    # all attention may be on the global token, to rounding; the place is then that of what is left
    share = near / near.sum(dim=1, keepdim=True).clamp(min=torch.finfo(near.dtype).tiny)
    return share @ centres, attended[:, -1]
