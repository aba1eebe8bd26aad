"""Where a tower begins, and what is saved of it. In: an encoder, weights to start from. Out: towers.

`peft` adds the adapters of LoRA (Hu et al. 2021); they are merged into the weights before a tower is scored or saved, so that
what is stored is the same plain tower as ever.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from encoders.encoder import Encoder, seeded_tower
from encoders.errors import SpaceError
from encoders.training.recipe import TrainingError

LORA_ALPHA = 2  # times the rank: what an adapter's product is scaled by, over the rank


@dataclass(frozen=True)
class Start:
    """What a tower is before its first step.

    Attributes:
        origin: an encoder whose weights it takes; None: they are drawn.
        part: the name of the module within the tower that takes them; "" for the tower itself.
        lora_rank: train adapters of this rank beside its linear layers, and nothing else; 0: train all weights.
    """

    origin: Encoder | None = None
    part: str = ""
    lora_rank: int = 0


def begin(encoder: Encoder, start: Start, seed: int) -> nn.Module:
    """The tower of an encoder, ready for its first step; what is drawn depends on `seed` alone.

    Raises:
        SpaceError: the weights do not fit.
        TrainingError: adapters were asked for and there is nothing to put them beside.
    """
    tower = seeded_tower(encoder, seed)
    if start.origin is not None:
        taking = tower.get_submodule(start.part)
        state, wanted = start.origin.state(), taking.state_dict()
        fitting = {name for name in state.keys() & wanted.keys() if state[name].shape == wanted[name].shape}
        if misfit := {*state, *wanted} - fitting:
            raise SpaceError(
                f"the weights of {start.origin.architecture!r} do not fit {encoder.architecture!r}: {len(misfit)} differ "
                f"(first: {min(misfit)}); start from an encoder of the same architecture and settings"
            )
        taking.load_state_dict(state)
    return _with_adapters(tower.float(), start.lora_rank, seed) if start.lora_rank else tower.float()


def plain(tower: nn.Module) -> nn.Module:
    """The tower as it is scored and saved, with adapters merged; one that has none is returned as it is."""
    if not hasattr(tower, "merge_and_unload"):
        return tower
    merged: nn.Module = copy.deepcopy(tower).merge_and_unload()  # type: ignore[operator]
    return merged


def _with_adapters(tower: nn.Module, rank: int, seed: int) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model  # here: it takes seconds to import, and is an extra
    except ImportError as error:
        raise TrainingError("LoRA needs the package peft: pip install 'bindery[bind]'") from error
    linear = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise TrainingError(f"lora_rank {rank}: this tower has no linear layer to adapt; leave lora_rank at 0")
    config = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules=linear)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: nn.Module = get_peft_model(tower, config)
    return adapted
