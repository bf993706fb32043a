"""Which rank this process is, and of how many: asked of torch.distributed, or of the launcher's variables."""

from __future__ import annotations

import os
import sys
from typing import Tuple

from ._errors import misuse

#: Pairs of variables that launchers set, in the order they are asked. SLURM's are those of the step: in a batch script
#: outside of srun only the job's number of tasks is set, and a job of one process would read a part of its data.
_LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpiexec", "PMI_RANK", "PMI_SIZE"),
)


def rank_and_world_size() -> Tuple[int, int]:
    """Rank and world size of this process; `(0, 1)` where nobody says.

    Asks, in this order: torch.distributed, if it was imported and initialised; the variables of torchrun, srun, Open MPI
    and MPICH.
    """
    # Never imported for this: a process group that exists was made by the user's own import.
    torch_distributed = sys.modules.get("torch.distributed")
    if torch_distributed is not None and torch_distributed.is_available() and torch_distributed.is_initialized():
        return torch_distributed.get_rank(), torch_distributed.get_world_size()
    for launcher, rank_name, size_name in _LAUNCHERS:
        rank, size = os.environ.get(rank_name), os.environ.get(size_name)
        if rank is None or size is None:
            continue
        try:
            found = int(rank), int(size)
        except ValueError:
            found = -1, 0
        if not 0 <= found[0] < found[1]:
            raise misuse(
                f"{rank_name}={rank} and {size_name}={size}, as {launcher} sets them, are no rank of a world",
                "unset them, or give rank and world_size to the loader",
            )
        return found
    return 0, 1
