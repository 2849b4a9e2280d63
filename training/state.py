"""What a run carries from step to step, and a checkpoint therefore holds."""

from dataclasses import dataclass, field
from typing import Any

import torch

from training.task import Task


@dataclass
class TrainState:
    task: Task
    optimizers: dict[str, torch.optim.Optimizer]
    """By phase."""
    averages: dict[str, torch.Tensor] = field(default_factory=dict)
    """Averaged weights by `<parameter>`, other copies by `<kind>|<parameter or buffer>`, sharded as that is."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the loop must know to go on, as JSON, equal on every worker. `best`: {"step": the step whose
    checkpoint is kept however old it gets, ...}."""
