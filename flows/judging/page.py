"""What every HTML page of Slipway shares: one file, no script, hostile text shown and never obeyed.

Texts come from the data: templates escape everything, and each page's content security policy forbids scripts and
outside resources.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

UNSEEN = [*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
VISIBLE = {code: f"[U+{code:04X}]" for code in UNSEEN}
"""Control characters, which HTML cannot hold, and those that reorder text and so can make it read as something else
(Boucher & Anderson, "Trojan source: invisible vulnerabilities", 2021, §3) -> how a page writes them."""


def pages() -> "jinja2.Environment":
    """The environment of the templates in this folder; the filter `p` writes a p value."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value.translate(VISIBLE) if type(value) is str else value,
    )
    environment.filters["p"] = lambda value: f"{value:.2g}" if value >= 1e-12 else "< 1e-12"
    return environment
