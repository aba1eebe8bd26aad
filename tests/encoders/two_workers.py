"""A worker of a training that two processes share. argv: rank, count, a file to meet at, where to save, micro batch."""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed
from toy_training import toy_training

from encoders.training.workers import Workers


def main(rank: int, count: int, meeting: str, out: str, micro_batch: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    training = toy_training(Workers(), micro_batch=micro_batch, optimiser="adamw")
    while training.epoch < training.recipe.epochs:
        training.run_epoch()
    if rank == 0:
        torch.save(training.state_dict(), out)
    distributed.barrier()  # nobody hangs up on who is still at it
    distributed.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes outlive the interpreter's end, which aborts it: "terminate called", seen once


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
