"""Wan weights from the disk to where they are kept: on the device or the host, quantised or not."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import RestoreConfig
from ..offload import BlockOffload, ModelOffload
from ..quantize import QuantizedLinear, quantize_blocks
from ..shards import check_keys, load_into
from .wan_dit import WanDiT
from .wan_layout import Expert

IN_FP32 = ("time_embedder", "scale_shift_table", "norm")  # parts of names: small and sensitive
HOST = torch.device("cpu")


def held_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """In which the parameter `name` of a network of `dtype` is held."""
    return torch.float32 if any(part in name for part in IN_FP32) else dtype


def check(expert: Expert, weights: str) -> None:
    """EngineError that names every key that is missing, unexpected or misshapen; reads headers."""
    config = expert.config
    on_disk = {"patch_embedding.weight": (config.dim, config.channels, *config.patch)}
    check_keys(expert.shards, _empty(expert, weights), expert.rename, on_disk)


@torch.inference_mode(False)  # the weights outlive the mode of the run that first needs them
def read(expert: Expert, config: RestoreConfig, device: torch.device, dtype: torch.dtype) -> WanDiT:
    """The network with its weights, tensor by tensor: it is never held twice.

    `config.offload` says what waits on the host, `config.weights` how matrices of blocks are held.
    """
    network = _empty(expert, config.weights)
    waits = {"none": (), "block": ("blocks.",), "model": ("",)}[config.offload]

    def place(name: str, tensor: Tensor) -> Tensor:
        target = HOST if name.startswith(waits) else device
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        if leaf == "weight" and isinstance(module, QuantizedLinear):
            return module.take(tensor.to(target))
        if name == "patch_embedding.weight":
            tensor = tensor.flatten(1)  # a convolution whose stride is its size
        return tensor.to(target, held_dtype(name, dtype), copy=True)

    load_into(network, expert.shards, expert.rename, place)
    if config.offload == "block":
        network.fetched = BlockOffload(network.blocks, device)
    elif config.offload == "model":
        network.on_device = ModelOffload(network, device).on_device
    return network.eval()


def _empty(expert: Expert, weights: str) -> WanDiT:
    with torch.device("meta"):
        network = WanDiT(expert.config)
        if weights != "auto":
            quantize_blocks(network, weights)
    return network
