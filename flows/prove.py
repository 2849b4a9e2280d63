"""Proofs: things are broken on purpose, and what must always be true is looked at. One file in `flows/proofs` a proof.

A proof has a docstring whose first line says what it shows, and `prove(options, say)`, which returns a JSON document
with `held`, whether it was shown, and all that was seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from infra.errors import WrongInput, choices

FOLDER = Path(__file__).parent / "proofs"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    kills: int = 10
    """How often something is killed."""
    workers: int = 2
    seed: int = 0
    """Of where and when it is killed."""
    elastic: bool = True
    """Whether the number of workers is changed too, where the proof does that."""


def proof_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def prove(name: str, options: Options, say: Say) -> dict[str, Any]:
    """Raises WrongInput for an unknown name."""
    if name not in proof_names():
        raise WrongInput(f"proof '{name}': is unknown; {choices(name, proof_names())}")
    return {"proof": name, "seed": options.seed, **import_module(f"flows.proofs.{name}").prove(options, say)}
