"""Attention of every voxel to the tokens of every layer: where a voxel reads depends on the image.

After "Transformer brain encoders explain human high-level visual responses" (Adeli, Sun and Kriegeskorte,
NeurIPS 2025): learned queries for the brain attend to keys of the image's tokens, followed by a linear
readout. Their queries belong to areas or vertices; ours belong to voxels, because a fit does not know areas.
They choose layers beforehand or concatenate them; here each voxel learns a distribution over layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.config import AttentionConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.factortopy.selectors import EVERY
from harness.mappings.mapping import Mapping
from harness.mappings.training import fit_model
from harness.storage import InputError
from harness.tokens import LayerTokens

# learning rates of parameters that have the gradient of one voxel's error and must move far in a few hundred
# steps
LAYER_RATE = 12.0
QUERY_RATE = 8.0


@dataclass(frozen=True)
class Reading:
    """The part of the voxels' attention that does not depend on the image.

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

    Queries and layer logits start at zero: all layers are equal, the global token gets half of the attention
    and all places share the other half.

    Weights w_n multiply the values before these are mixed, so mixed values are never stored, and the backward
    pass recomputes attention one layer at a time. With S = n_places + 1, a prediction costs
    4 · n_images · n_layers · n_voxels · S · D operations, a training step four times that, and memory is a
    few arrays [n_images, n_voxels, S]. For 12 layers, 2,000 voxels, 64 stimuli, 4 × 4 places and 32 channels
    that is 3 · 10⁹ operations and 9 MB per array; FactorTopy's cost has no factor S.

    Parameters
    ----------
    n_voxels : int
    layer_widths : sequence of int
        Number of token channels of every layer.
    n_channels : int
        D, width of keys and of values.
    n_places : int
        Number of local tokens per image.

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
        """Layer distributions and scaled queries of all or some voxels; differentiable."""
        query = self.query[voxels] / math.sqrt(self.query.shape[1])
        return Reading(self.layer_logits[voxels].softmax(dim=1), query)

    def forward(
        self,
        local: Sequence[Float[Tensor, "n_images _ height width"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
        reading: Reading,
        voxels: slice = EVERY,
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict responses; `reading` is the result of `selectors(voxels)`."""
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
        """Compute every voxel's attention to one layer's tokens: places row by row, then the global token."""
        keys = _project(self.local_key[index], self.global_key[index], local, global_) + self.place
        logits = query @ keys.transpose(1, 2)
        offset = logits.new_zeros(logits.shape[2])
        offset[-1] = math.log(logits.shape[2] - 1)
        return (logits + offset).softmax(dim=2)

    def regularizer(self, reading: Reading) -> Float[Tensor, ""]:
        """Negative entropy of the layer distributions (-1 to 0), averaged over voxels; 0 with one layer."""
        # the entropy's gradient is infinite for a share that underflows to 0
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


def fit_attention(data: FitData, config: AttentionConfig, options: FitOptions) -> Mapping:
    """Fit attention on the training stimuli and score it on the held-out ones.

    Training and errors are as in `factortopy.fit.fit`, except that queries learn `QUERY_RATE` and the layer
    logits `LAYER_RATE` times faster than the projections.

    The mapping's space and scale are means of the attention over the training stimuli (`where_attended`);
    two voxels with the same mean may attend to it in different images.
    """

    def build(layer_widths: list[int]) -> Attention:
        return Attention(data.n_voxels, layer_widths, config.n_channels, config.token_size**2)

    def rates(model: Attention) -> dict[nn.Parameter, float]:
        # weights: the model divides the sum over them by D
        return {
            model.weight: float(config.n_channels),
            model.query: QUERY_RATE,
            model.layer_logits: LAYER_RATE,
        }

    fitted = fit_model(build, rates, data, config, options)
    model = fitted.model
    train = torch.from_numpy(data.split.train)
    batches = [fitted.tokens.take(batch) for batch in train.split(config.batch_size)]
    space, scale = where_attended(model, batches)
    with torch.no_grad():
        layer = model.selectors().layer
    return Mapping(
        layers=data.tokens.layers,
        space=space.cpu().numpy(),
        layer=layer.cpu().numpy(),
        scale=scale.cpu().numpy(),
        weights=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        r2=fitted.r2,
        correlation=fitted.correlation,
        steps=fitted.steps,
        learned=fitted.learned(),
        family=config.family,
    )


@torch.no_grad()
def where_attended(
    model: Attention, batches: Sequence[LayerTokens]
) -> tuple[Float[Tensor, "n_voxels 2"], Float[Tensor, " n_voxels"]]:
    """Compute the mean place of the attention, and the global token's share of it.

    With ā_ns the attention a_nls averaged over images and, by ω, over layers, and c_s the centre of token s
    (x, then y; the image's edges are -1 and 1):

        α_n = ā_n,global        u_n = Σ_s local ā_ns c_s / (1 − α_n)

    Spread-out attention has its mean nearer to the image's centre than most of its mass.

    Parameters
    ----------
    model : Attention
    batches : sequence of LayerTokens
        Tokens that the model was trained on; each batch is one forward pass.
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
    # the global token may have all attention up to rounding; the place is then that of the remainder
    share = near / near.sum(dim=1, keepdim=True).clamp(min=torch.finfo(near.dtype).tiny)
    return share @ centres, attended[:, -1]
