"""What must never be shown: keys, tokens and passwords, alone or inside an address.

A `Secret` is text that reads `***` wherever it goes: print, repr, JSON, a pickle, a database. Only `reveal()` tells it.
`redact` is the net below that for text made by libraries: every message of `infra.errors` goes through it.
"""

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

SHOWN = "***"
SHORTEST = 8
"""Shorter values are not looked for in running text, where they would be found in innocent words."""

# As SQLAlchemy reads an address: the password ends at the last @. Digits and a slash are a port and a path instead.
_PASSWORD = re.compile(r"""([a-z][\w+.-]*://[^\s:/@'"]*:)(?!\d+/)([^\s'"]+)(?=@)""", re.IGNORECASE)
_USER_OF_A_PAGE = re.compile(r"""(https?://)([^\s:/@'"]+)(?=@)""", re.IGNORECASE)
"""https://TOKEN@host; of a database the user is no secret."""
_IN_QUERY = re.compile(
    r"""([?&](?:[\w.-]*(?:password|passwd|token|secret|signature|credential|api_?key)|sig)=)([^&\s'"]+)""",
    re.IGNORECASE,
)
_PATTERNS = (_PASSWORD, _USER_OF_A_PAGE, _IN_QUERY)
_NAMED_SO = re.compile(r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|AUTH_STRING|CREDENTIALS)$")

_known: set[str] = set()


class Secret(str):
    """Compares and sorts by what it shows. A pickled copy holds no secret: each process reads its own settings."""

    _value: str

    def __new__(cls, value: str = "", shown: str = SHOWN) -> "Secret":
        if isinstance(value, Secret):
            return value
        self = super().__new__(cls, shown if value else "")
        self._value = value
        return self

    @classmethod
    def alone(cls, value: str) -> "Secret":
        """A key, token or password: all of it is secret."""
        if not isinstance(value, Secret):
            remember(value)
        return cls(value)

    @classmethod
    def inside(cls, address: str) -> "Secret":
        """An address, shown without the password in it."""
        if not isinstance(address, Secret):
            remember_address(address)
        return cls(address, shown=redact(address))

    def reveal(self) -> str:
        return self._value

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)

    def __str__(self) -> str:
        return str.__str__(self)


def remember(value: str) -> None:
    """Have `redact` look for a value, and for what it is in an address and in a header of basic authentication."""
    if len(value) >= SHORTEST:
        _known.update({value, quote(value, safe=""), base64.b64encode(value.encode()).decode()})


def remember_address(address: str) -> None:
    """Have `redact` look for what is secret in an address."""
    for pattern in _PATTERNS:
        for found in pattern.finditer(address):
            remember(found[2])
            remember(unquote(found[2]))


def remember_environment(environment: Mapping[str, str]) -> None:
    """Variables that are named like a secret (AWS_SECRET_ACCESS_KEY, HF_TOKEN), and passwords in addresses."""
    for name, value in environment.items():
        if _NAMED_SO.search(name.upper()):
            remember(value)
        elif "://" in value:
            remember_address(value)


def redact(text: str) -> str:
    """The text without remembered secrets, and without the password of any address in it."""
    for value in sorted(_known, key=len, reverse=True):
        if value in text:  # whole words alone: a password may be `postgres`
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", SHOWN, text)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{SHOWN}", text)
    return text
