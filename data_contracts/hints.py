"""What a column may mean, guessed from its name and a sample: type, personal data, language, role."""

import re
from collections import Counter
from typing import Any

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?")
INTEGER = re.compile(r"[-+]?\d{1,19}")
PADDED = re.compile(r"[-+]?0\d+")
DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf(inity)?", re.IGNORECASE)
BOOLEAN = {"true", "false"}
MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-")
"""What files write for "no value", beside nothing."""

EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[A-Za-z]{2,}")
PHONE = re.compile(r"\+?\(?\d[\d ()./-]{6,18}\d")
PERSON = re.compile(r"([A-Z][\w'’-]+,? )+[A-Z][\w'’.-]*")
PERSONAL_NAMES = {
    "e-mail address": r"e?_?mail",
    "phone number": r"phone|mobile|\btel\b|telefon|\bfax\b",
    "name of a person": r"(first|last|sur|family|given|full|user|nick|middle)_?name|^author$",
    "postal address": r"address|street|post_?code|\bzip\b",
    "date of birth": r"birth|\bdob\b",
    "number of a person": r"\bssn\b|passport|iban|social_?security|national_?id|tax_?id",
    "place of a person": r"\bip\b|ip_?addr|latitude|longitude",
}
STOPWORDS = {
    "English": "the of and to in is that it for was with on as are this",
    "German": "der die und das ist nicht ein eine mit von den auf für zu",
    "French": "le la les et des est un une dans que pour qui sur pas",
    "Spanish": "el la los las de que y en un una por con para es",
    "Italian": "il di che la è un per non sono con una del della gli",
    "Portuguese": "o de que e do da em um para com não uma os no",
    "Dutch": "de het een van en is dat op te met voor niet zijn",
}
SCRIPTS = {
    "Chinese": "\u4e00-\u9fff",
    "Japanese": "\u3040-\u30ff",
    "Korean": "\uac00-\ud7af",
    "Russian or another in Cyrillic": "\u0400-\u04ff",
    "Arabic": "\u0600-\u06ff",
    "Greek": "\u0370-\u03ff",
    "Hebrew": "\u0590-\u05ff",
    "Hindi": "\u0900-\u097f",
}
LABELS = ("label", "labels", "target", "class", "category", "sentiment", "species", "outcome", "rating", "score", "y")
GROUPS = re.compile(
    r"(user|customer|client|patient|subject|author|speaker|session|document|doc|group|person|account|household|device"
    r"|writer|volunteer|participant|family)(_?id|_?key|_?no|_?number|name)?",
    re.IGNORECASE,
)
KEYS = re.compile(r"(.*_)?(id|key|uuid|guid|index|instant)|.*Id|.*ID|unnamed: 0|column_1", re.IGNORECASE)
GOOD_SHARE = 0.97
"""Of a column's values that must be of a type for it to be drafted; the rest would be quarantined."""


def type_of(values: list[str]) -> tuple[str, float]:
    """(logicalType, share of the values that are not of it) of values that stand as text; at least one."""
    counts = Counter[str]()
    for value in values:
        value = value.strip()
        if INTEGER.fullmatch(value) and abs(int(value)) < 2**63:
            counts["padded" if PADDED.fullmatch(value) else "integer"] += 1
        elif DECIMAL.fullmatch(value):
            counts["number"] += 1
        elif value.lower() in BOOLEAN:
            counts["boolean"] += 1
        elif DATE.fullmatch(value) and _is_date(value):
            counts["date"] += 1
        elif TIMESTAMP.fullmatch(value) and _is_date(value):
            counts["timestamp"] += 1
        else:
            counts["string"] += 1
    total = len(values)
    if not counts["padded"]:
        for kinds in (("integer",), ("integer", "number"), ("boolean",), ("date",), ("date", "timestamp")):
            good = sum(counts[kind] for kind in kinds)
            if good >= GOOD_SHARE * total:
                return kinds[-1], 1 - good / total
    return "string", 0.0


def _is_date(value: str) -> bool:
    from datetime import datetime

    try:
        datetime.fromisoformat(value)
        return True
    except ValueError:
        return False


def missing_marks(values: list[str]) -> list[str]:
    """Marks for "no value" in a column that without them would be no text."""
    marks = [mark for mark in MISSING if mark in values]
    rest = [value for value in values if value not in marks]
    return marks if marks and rest and type_of(rest)[0] != "string" else []


def personal(name: str, kind: str, values: list[Any]) -> str | None:
    """What personal data a column may hold: "e-mail address", by its values or its name."""
    if kind in ("boolean", "image", "array") or not values:
        return None
    texts = [str(value) for value in values]
    if kind == "string":
        if sum(bool(EMAIL.search(text)) for text in texts) > 0.1 * len(texts):
            return "e-mail address"
        digits = [text for text in texts if PHONE.fullmatch(text.strip()) and sum(map(str.isdigit, text)) >= 7]
        dated = sum(bool(DATE.match(text)) for text in texts)
        if len(digits) > 0.5 * len(texts) and dated < len(digits) / 2:
            return "phone number"
        if name.lower() == "name" and sum(bool(PERSON.fullmatch(text.strip())) for text in texts) > 0.5 * len(texts):
            return "name of a person"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    for meaning, pattern in PERSONAL_NAMES.items():
        if re.search(pattern, words.replace("_", " ") if "\\b" in pattern and "_" in words else words):
            if meaning == "name of a person" and kind != "string":
                continue
            return meaning
    return None


def language(texts: list[str]) -> str | None:
    """The language that texts look to be in; None for short or mixed ones."""
    whole = " ".join(texts)[:200_000]
    for name, span in SCRIPTS.items():
        if len(re.findall(f"[{span}]", whole)) > 0.2 * max(len(whole), 1):
            return name
    words = Counter(re.findall(r"[^\W\d_]+", whole.lower()))
    total = sum(words.values())
    if total < 50:
        return None
    shares = {name: sum(words[word] for word in common.split()) / total for name, common in STOPWORDS.items()}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] > 0.08 else None
