"""From vectors to a few codes and back: `VectorQuantizer` (the nearest of a codebook), `GumbelQuantizer` (a softmax).

Both take what an encoder says of each place of a grid and give what a decoder reads there; both draw no chance of their
own, so that the samples' keys decide it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from training.randomness import stream_seed

DEAD = 0.03
"""A code is dead that is used less than this share of what each would be if all were used alike."""
FINAL_TEMPERATURE = 1 / 16
"""Ramesh et al. 2021, appendix A.2."""


class Quantizer(nn.Module, ABC):
    codebook: torch.Tensor
    """(codes, width)"""

    @abstractmethod
    def forward(self, said: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """said: (N, into, G, G), of the encoder. noise: (N, codes, G, G), where chance is drawn. Returns
        (N, width, G, G), and the sums of its own losses over all N x G x G places."""

    @abstractmethod
    def codes(self, said: torch.Tensor) -> torch.Tensor:
        """(N, into, G, G) -> (N, G, G) int64"""

    def vectors(self, codes: torch.Tensor) -> torch.Tensor:
        """(N, G, G) int64 -> (N, width, G, G)"""
        return functional.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def before_step(self, step: int, num_steps: int) -> None:
        """As `Task.before_step`."""

    def after_step(self, step: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """As `Task.after_step`."""


class VectorQuantizer(Quantizer):
    """Each vector becomes the nearest of the codebook, whose codes follow the mean of what falls to them.

    van den Oord, Vinyals & Kavukcuoglu, NeurIPS 2017, §3.1 and appendix A.1 (the moving averages). A dead code is put
    beside one whose vectors lie far apart, and the two share them (Linde, Buzo & Gray, "An algorithm for vector
    quantizer design", IEEE Trans. Communications 28(1), 1980, §III, who so split codes). Unlike drawing a vector of the
    batch, that is the same on every worker without sending vectors about.
    """

    uses: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor

    def __init__(self, codes: int, width: int, decay: float):
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", torch.randn(codes, width))
        # Moving averages over steps, of the vectors that fell to each code:
        self.register_buffer("uses", torch.zeros(codes))  # how many
        self.register_buffer("sums", torch.zeros(codes, width))
        self.register_buffer("squares", torch.zeros(codes, width))  # of the distance to the code, summed
        # No buffer: before each forward DDP overwrites the buffers with the first worker's.
        self.seen: torch.Tensor | None = None

    def forward(self, said: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        said = said.float()
        codes = self.codes(said)
        found = self.vectors(codes)
        if self.training:
            self._see(said.detach(), codes, found)
        commitment = functional.mse_loss(said, found, reduction="sum") / said.shape[1]
        return said + (found - said).detach(), {"commitment_loss": commitment}

    def codes(self, said: torch.Tensor) -> torch.Tensor:
        flat = said.float().permute(0, 2, 3, 1)
        with torch.autocast(said.device.type, enabled=False):  # in bf16 another code is often the nearest
            away = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T  # but for the vector's own length
        return away.argmin(-1)

    def _see(self, said: torch.Tensor, codes: torch.Tensor, found: torch.Tensor) -> None:
        flat = said.permute(0, 2, 3, 1).reshape(-1, said.shape[1])
        apart = (said - found).permute(0, 2, 3, 1).reshape_as(flat).square()
        rows = torch.cat([torch.ones_like(flat[:, :1]), flat, apart], 1)
        new = torch.zeros(len(self.codebook), rows.shape[1], device=rows.device)
        new.index_add_(0, codes.reshape(-1), rows)
        self.seen = new if self.seen is None else self.seen + new

    @torch.no_grad()
    def after_step(self, step: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        assert self.seen is not None, "a step follows a forward pass in training"
        width = self.codebook.shape[1]
        uses, sums, squares = reduce(self.seen).split([1, width, width], 1)
        self.seen = None
        for average, now in ((self.uses, uses[:, 0]), (self.sums, sums), (self.squares, squares)):
            average.lerp_(now, 1 - self.decay)
        alive = self.uses > DEAD * self.uses.mean()
        self.codebook.copy_(torch.where(alive[:, None], self.sums / self.uses[:, None].clamp_min(1e-12), self.codebook))
        if not alive.all():
            self._revive(alive, step)

    def _revive(self, alive: torch.Tensor, step: int) -> None:
        """As many dead codes as there are living ones to share with."""
        dead = (~alive).nonzero()[:, 0]
        spread = torch.where(alive, self.squares.sum(1), -1.0)
        count = min(len(dead), len(alive) - len(dead))
        dead, split = dead[:count], spread.argsort(descending=True, stable=True)[:count]
        chance = torch.Generator().manual_seed(stream_seed(step, "revived codes"))
        direction = torch.randn(count, self.codebook.shape[1], generator=chance).to(self.codebook)
        aside = direction * (self.squares[split] / self.uses[split, None]).sqrt()
        self.codebook[dead] = self.codebook[split] + aside
        self.codebook[split] -= aside
        for average in (self.uses, self.squares):
            average[split] /= 2
            average[dead] = average[split]
        for place in (dead, split):
            self.sums[place] = self.codebook[place] * self.uses[place, None]


class GumbelQuantizer(Quantizer):
    """The encoder gives each code a logit; in training the decoder reads a mixture that a falling temperature makes one
    code, with Gumbel noise; otherwise the likeliest.

    Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax", ICLR 2017; Ramesh et al., ICML 2021, §2.1.
    """

    def __init__(self, codes: int, width: int, annealed: float):
        super().__init__()
        self.annealed, self.temperature = annealed, 1.0
        self.codebook = nn.Parameter(torch.randn(codes, width))

    def forward(self, said: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = said.float()
        logs = logits.log_softmax(1)
        # Of each place, how far from saying nothing it is: KL(q || uniform), at most log(codes).
        kl = (logs.exp() * logs).sum() + logs[:, 0].numel() * math.log(logs.shape[1])
        if noise is None:
            return self.vectors(self.codes(logits)), {"kl_loss": kl}
        share = ((logits + noise) / self.temperature).softmax(1)
        return torch.einsum("nkhw,kd->ndhw", share, self.codebook), {"kl_loss": kl}

    def codes(self, said: torch.Tensor) -> torch.Tensor:
        return said.argmax(1)

    def before_step(self, step: int, num_steps: int) -> None:
        """From 1 down to FINAL_TEMPERATURE at `annealed` of the run, by a cosine."""
        share = min(1.0, step / max(1.0, self.annealed * num_steps))
        self.temperature = 1 + (FINAL_TEMPERATURE - 1) * (0.5 - 0.5 * math.cos(share * math.pi))
