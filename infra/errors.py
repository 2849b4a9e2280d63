"""What a user is told, and the exit code that goes with it.

    SlipwayError            exit 1   the work failed for a reason outside the input
    ├── WrongInput          exit 2   a file, field, name or setting the user can mend
    └── Refused             exit 3   the pipeline said no: contract violated, gate rejected, approval void

The message of each is one line: which file, which field, what was found, what to do. The command line prints it
as it is, without the secrets that a library's words may hold. A programmer's mistake is an ordinary exception and keeps
its traceback.
"""

import difflib
from collections.abc import Iterable

from infra.secret import redact


class SlipwayError(Exception):
    exit_code = 1

    def __init__(self, message: str):
        super().__init__(" ".join(redact(message).split()))  # one line, whatever a library put into it


class WrongInput(SlipwayError):
    exit_code = 2


class Refused(SlipwayError):
    exit_code = 3


def choices(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` if one is near, then what there is: the tail of an error about an unknown name."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}there is: {', '.join(names) if names else 'none yet'}"
