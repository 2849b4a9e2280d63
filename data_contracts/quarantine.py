"""The quarantine of a version as it is shown to who corrects it, and the ids of rows that were corrected."""

import json
from typing import Any

from data_contracts.registry import Version, contract_of, read_file, read_quarantine
from data_contracts.row_sample import hidden, personal_columns
from infra.artifacts import check_format
from infra.store import Store


def quarantined_rows(store: Store, version: Version, limit: int | None = None) -> list[dict[str, Any]]:
    """{"row_id", "file", "row", "line", "rules", "reason"} of each row, or of the first `limit`, and its `values` by
    column or, of a row that could not be parsed, its text as `raw`. JSON values, personal ones as hashes.
    """
    contract = contract_of(store, version)
    personal = personal_columns(contract)
    table = read_quarantine(store, version).slice(0, limit)
    raws, said = table.column("raw"), table.column("values")
    rows = table.drop_columns(["raw", "values"]).to_pylist()
    for index, row in enumerate(rows):
        text = said[index].as_py()
        if text is None:  # only here is `raw` the row itself; beside values it is pixels
            raw = raws[index].as_py()
            row["raw"] = hidden(raw, contract) if personal else raw.decode("utf-8", "backslashreplace")
            continue
        row["values"] = {
            name: hidden(value, contract) if name in personal and value is not None else value
            for name, value in json.loads(text).items()
        }
    return rows


def corrected_rows(store: Store, version: Version) -> dict[str, str]:
    """Row id -> the one that it had in quarantine, of each row of the version that a person corrected."""
    from data_contracts.version_files import CORRECTIONS_FORMAT

    if "corrections" not in version.manifest["files"]:  # an older Slipway made it
        return {}
    path = read_file(store, version, "corrections")
    body = json.loads(path.read_text(encoding="utf-8"))
    check_format(body, CORRECTIONS_FORMAT, str(path))
    return {one["corrected_row_id"]: one["row_id"] for one in body["corrected"]}
