"""Two models' results on the test rows that both have answered, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.judging.evidence import Cited, Evaluation, Evidence, MissingEvidence, Subject


@dataclass(frozen=True)
class CommonRows:
    row_ids: list[str]
    mine: dict[str, list[Any]]
    """Column of `predictions.parquet` -> the candidate's value of each row."""
    theirs: dict[str, list[Any]]
    """The same of the champion, in the same order."""
    own: int
    """Test rows the candidate has answered in all."""
    files: tuple[Cited, Cited]
    """The candidate's predictions, and the champion's."""

    @property
    def said(self) -> str:
        common = len(self.row_ids)
        if common == self.own:
            return f"the same {self.own:,} test rows"
        return f"the {common:,} test rows both have answered (of the candidate's {self.own:,})"

    def take(self, rows: Sequence[int]) -> "CommonRows":
        mine, theirs = (
            {name: [values[row] for row in rows] for name, values in columns.items()}
            for columns in (self.mine, self.theirs)
        )
        return CommonRows([self.row_ids[row] for row in rows], mine, theirs, self.own, self.files)


def common_rows(
    evidence: Evidence, candidate: Subject, champion: Subject, columns: Sequence[str], minimum: int, setting: str = ""
) -> CommonRows:
    """Raises MissingEvidence when they have fewer rows in common than all (trained on one dataset version) or
    `minimum` (on two), naming `setting` as a way out."""
    ours, others = evidence.evaluation(candidate), evidence.evaluation(champion)
    if ours.metrics["task"] != others.metrics["task"]:
        raise MissingEvidence(
            f"{candidate.ref} is evaluated by {ours.metrics['task']}, the champion {champion.ref} by "
            f"{others.metrics['task']}: they cannot be compared; give the model another name"
        )
    label = ["label"] if "label" in ours.columns else []
    wanted = list(dict.fromkeys(["row_id", *label, *columns]))
    own = results(ours, wanted, candidate.ref)
    other = results(others, wanted, champion.ref)
    place = {row_id: index for index, row_id in enumerate(other["row_id"])}
    # A row id is the hash of the whole row: another label is another row.
    pairs = [
        (index, place[row_id])
        for index, row_id in enumerate(own["row_id"])
        if row_id in place and all(other[name][place[row_id]] == own[name][index] for name in label)
    ]
    rows = len(own["row_id"])
    needed = rows if candidate.dataset == champion.dataset else minimum
    if len(pairs) < max(needed, 1):
        way_out = f", or lower {setting}" if setting else ""
        raise MissingEvidence(
            f"{candidate.ref} and the champion {champion.ref} answered {len(pairs):,} test rows in common, "
            f"{needed:,} are needed; keep the champion's test rows in the data set{way_out}"
        )
    mine = {name: [values[index] for index, _ in pairs] for name, values in own.items()}
    theirs = {name: [values[index] for _, index in pairs] for name, values in other.items()}
    return CommonRows(mine["row_id"], mine, theirs, rows, (ours.predictions_file, others.predictions_file))


def results(evaluation: Evaluation, columns: Sequence[str], ref: str) -> dict[str, list[Any]]:
    """Those columns of an evaluation's predictions. Raises MissingEvidence when it has none of one."""
    lost = [name for name in columns if name not in evaluation.columns]
    if lost:
        raise MissingEvidence(
            f"{ref}'s evaluation has no {lost[0].replace('_', ' ')} of its rows: its model gave no probabilities, or "
            "it is older than this metric; evaluate it again"
        )
    return evaluation.predictions(list(columns)).to_pydict()
