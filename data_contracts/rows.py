"""Rows: cast to the contract's types, and named by what they hold.

A row's id is SHA-256 over its values after the cast, and for the second, third ... equal row over that and its
occurrence number. It is the same from CSV, JSONL and Parquet, in any batch size, on any machine. A row that cannot
be cast or parsed is named by its raw values or bytes.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from data_contracts import lists
from data_contracts.conditions import rows_meeting

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Column, Contract


def arrow_type(name: str) -> "pa.DataType":
    import pyarrow as pa

    if name == "timestamp":
        return pa.timestamp("us", tz="UTC")
    if name == "image":
        return pa.large_binary()
    if name.startswith(lists.PREFIX):
        return pa.list_(arrow_type(name.removeprefix(lists.PREFIX).removesuffix(">")))
    return getattr(pa, {"double": "float64", "float": "float32", "bool": "bool_"}.get(name, name))()


def schema_of(contract: "Contract") -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(column.name, arrow_type(column.arrow)) for column in contract.columns])


def cast(batch: "pa.RecordBatch", contract: "Contract") -> "tuple[pa.RecordBatch, dict[int, tuple[str, str]]]":
    """The batch in the contract's types, and of the rows that do not fit: row -> (column, what is wrong).

    In the returned batch such a value is null. Every column of the contract must be there, but those that conditions
    make: they are made here.
    """
    import pyarrow as pa

    found: dict[str, pa.Array] = {}
    faults: dict[int, tuple[str, str]] = {}
    for column in contract.columns:
        if column.condition is None:
            found[column.name], wrong = cast_column(batch.column(column.name), column, contract.nulls)
            for row, problem in wrong.items():
                faults.setdefault(row, (column.name, problem))
    there = pa.record_batch(list(found.values()), names=list(found))
    for column in contract.columns:
        if column.condition is not None:
            where = f"contract {contract.path}: schema.properties.{column.name}.slipway.condition"
            found[column.name] = rows_meeting(column.condition, there, where)
    return pa.record_batch([found[column.name] for column in contract.columns], schema=schema_of(contract)), faults


def cast_column(values: "pa.Array", column: "Column", nulls: tuple[str, ...]) -> "tuple[pa.Array, dict[int, str]]":
    """One column in the contract's type, and what is wrong with the rows that do not fit."""
    import pyarrow as pa
    import pyarrow.compute as pc

    target = arrow_type(column.arrow)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if column.arrow == "image":
        return values.cast(target), {}
    if column.type == "array":
        if nulls and pa.types.is_string(values.type):
            values = _without(values, pc.is_in(pc.utf8_trim_whitespace(values), pa.array(nulls, values.type)))
        return lists.cast_lists(values, column, lambda items, item: cast_column(items, item, ()))
    if pa.types.is_floating(values.type):
        values = _without(values, pc.is_nan(values))
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        if column.arrow != "string":
            values = pc.utf8_trim_whitespace(values)
        if nulls:
            values = _without(values, pc.is_in(values, pa.array(nulls, values.type)))
        if column.arrow == "string":
            return _nfc(values.cast(pa.string())), {}
    try:
        return _cast_whole(values, column.arrow, target), {}
    except pa.ArrowException:  # some value does not fit, or only `_cast_each` knows this pair of types
        return _cast_each(values, column, target)


def _nfc(values: "pa.Array") -> "pa.Array":
    """Unicode's composed form. NOTE pyarrow 25's utf8_normalize leaves e + accent as it is, whatever form is asked."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.all(pc.string_is_ascii(values)).as_py() is not False:
        return values
    texts = values.to_pylist()
    return pa.array([text if text is None else unicodedata.normalize("NFC", text) for text in texts], pa.string())


def _without(values: "pa.Array", mask: "pa.Array") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(mask, pa.scalar(None, values.type), values)


def _cast_whole(values: "pa.Array", name: str, target: "pa.DataType") -> "pa.Array":
    """Cast by Arrow where it and `_cast_each` agree on every value. Raises pa.ArrowException elsewhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if name in ("float", "double"):
        # By way of float64: a float32 file and its CSV must agree. Adding 0 makes -0.0 the 0.0 it equals.
        wide = pc.add(values.cast(pa.float64(), safe=False), 0.0)
        if text:
            wide = _without(wide, pc.is_nan(wide))
        narrow = wide.cast(target, safe=False)
        if target == pa.float32() and not pc.is_inf(narrow).equals(pc.is_inf(wide)):
            raise pa.ArrowInvalid("too large for 32 bits")
        return narrow
    if text and (name == "timestamp" or pc.any(pc.match_substring_regex(values, "[^-0-9A-Za-z:.]|x|X")).as_py()):
        raise pa.ArrowInvalid("Arrow reads 0x10 as a number, and times with a zone as another type")
    if name == "string" and not pa.types.is_integer(values.type):
        raise pa.ArrowInvalid("Python's text of a number is the shortest that gives it back")
    if name == "bool" and not text and not pa.types.is_boolean(values.type):
        raise pa.ArrowInvalid("7 is no truth value")
    if name == "timestamp" and pa.types.is_timestamp(values.type) and values.type.tz is None:
        values = pc.assume_timezone(values.cast(pa.timestamp("us")), "UTC")
    return values.cast(target)


def _cast_each(values: "pa.Array", column: "Column", target: "pa.DataType") -> "tuple[pa.Array, dict[int, str]]":
    """Value by value, to find those that do not fit."""
    import pyarrow as pa

    read = _READERS[column.type]
    good: list[Any] = []
    faults = {}
    for row, value in enumerate(values.to_pylist()):
        try:
            wanted = None if value is None else read(value)
            got = pa.scalar(wanted, target).as_py()
            if isinstance(got, float) and math.isinf(got) and not math.isinf(float(value)):
                raise OverflowError(value)
        except (ValueError, TypeError, ArithmeticError, KeyError, pa.ArrowException):
            got = None
            shown = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
            faults[row] = f"'{shown}' is not {_article(column)}"
        good.append(got)
    return pa.array(good, target), faults


def _article(column: "Column") -> str:
    width = "" if column.arrow in ("string", "bool", "timestamp", "date32", "int64", "double") else f" ({column.arrow})"
    name = {"integer": "an integer", "boolean": "true or false", "string": "text"}.get(column.type, f"a {column.type}")
    return name + width


def _plain(value: Any) -> Any:
    """Python reads 1_000 and other alphabets' digits as numbers; a data file's reader would not."""
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(value)
    return value


def _read_integer(value: Any) -> int:
    number = Decimal(repr(value) if isinstance(value, float) else _plain(value))
    if not number.is_finite() or number.adjusted() > 40 or number != number.to_integral_value():
        raise ValueError(value)
    return int(number)


def _read_number(value: Any) -> float | None:
    number = float(_plain(value))
    return None if number != number else number + 0.0


def _read_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}[str(value).strip().lower()]


def _read_string(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, (list, dict)):
        raise ValueError(value)
    return unicodedata.normalize("NFC", ("true" if value else "false") if isinstance(value, bool) else str(value))


def _read_date(value: Any) -> date:
    if isinstance(value, datetime):
        if value.time() != time(0):
            raise ValueError(value)
        return value.date()
    return value if isinstance(value, date) else date.fromisoformat(str(value).strip())


def _read_timestamp(value: Any) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


_READERS: dict[str, Callable[[Any], Any]] = {
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "string": _read_string,
    "date": _read_date,
    "timestamp": _read_timestamp,
}


def as_text(values: "pa.ChunkedArray | pa.Array") -> list[str | None]:
    """Each value of a cast column as text that says it exactly: floats and times by their bits."""
    return exact_text(values).to_pylist()


def exact_text(values: Any) -> Any:
    """The same as an Arrow array or chunked array of strings."""
    import pyarrow as pa

    return values if pa.types.is_string(values.type) else _exact(values).cast(pa.string())


def _exact(values: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_large_binary(values.type):  # pixels: their hash says them
        hashes = [None if not one.is_valid else hashlib.sha256(one.as_buffer()).hexdigest() for one in values]
        return pa.array(hashes, pa.string())
    if lists.is_list(values.type):
        return lists.exact_lists(values, _exact)
    if pa.types.is_floating(values.type):
        bits = pa.int32() if values.type.bit_width == 32 else pa.int64()
    elif pa.types.is_date32(values.type):
        bits = pa.int32()
    elif pa.types.is_timestamp(values.type):
        bits = pa.int64()
    else:
        return values
    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([chunk.view(bits) for chunk in values.chunks], bits)
    return values.view(bits)


def encode(batch: "pa.RecordBatch") -> list[bytes]:
    """One byte string a row, different for rows that differ: `length:text` of each value, `-` for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = []
    for column in batch.columns:
        text = _exact(column).cast(pa.string())
        length = pc.binary_length(text).cast(pa.string())
        parts.append(pc.fill_null(pc.binary_join_element_wise(length, text, ":"), "-"))
    return pc.binary_join_element_wise(*parts, ",").cast(pa.binary()).to_pylist()


def values_content(values: dict[str, Any]) -> bytes:
    """What the id of a row that could not be cast is the hash of."""
    said = {name: None if value is None else said_plainly(value) for name, value in values.items()}
    return b"values" + json.dumps(said, sort_keys=True).encode()


def said_plainly(value: Any) -> str:
    """A value as any source gives it, as the text that a source of texts would give."""
    try:
        return lists.list_text(value) if isinstance(value, list) else str(value)
    except ValueError:
        return str(value)


class RowIds:
    """Hands out row ids, counting equal rows over all batches of a dataset."""

    def __init__(self) -> None:
        self.seen: dict[bytes, int] = {}
        self.repeated = 0
        """Rows that equal an earlier one."""

    def of(self, batch: "pa.RecordBatch") -> list[str]:
        return [self._next(b"row" + row) for row in encode(batch)]

    def of_raw(self, raw: bytes) -> str:
        """The id of a row that could not be parsed."""
        return self._next(b"raw" + raw)

    def of_values(self, values: dict[str, Any]) -> str:
        """The id of a row that was parsed and could not be cast."""
        return self._next(values_content(values))

    def _next(self, content: bytes) -> str:
        digest = hashlib.sha256(content)
        key = digest.digest()
        occurrence = self.seen.get(key, 0)
        self.seen[key] = occurrence + 1
        if occurrence:
            self.repeated += 1
            digest = hashlib.sha256(key + b"#%d" % occurrence)
        return digest.hexdigest()
