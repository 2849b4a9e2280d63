"""What `slipway monitor` watches and when it says alarm: `monitor` in an experiment.

    monitor:
      window: 7d                        h, d or w after a whole number, or month; windows begin on a Monday, in UTC
      alarm: [input, prediction, estimated, real]     what of it is an alarm; the rest is only said
      alpha: 0.005                      how often chance alone may make a window an alarm: one in 200
      drop: 0.05                        how far below the test split's accuracy an estimated or real one may fall
      minimum_rows: 50                  a window with fewer is shown and not judged
      within: month                     an input column: a window is compared with training rows of its values alone
      time: day                         a date column of the training data: drift is more than its windows differ

Whether drift of a column is an alarm, and how large it has to be, the data contract says (`slipway.drift`); what it
says of the label holds for the predictions. `within` is for what comes back: next to a whole year any January has
drifted, next to January only a strange one. `time` is for rows that are not independent, such as the hours of one day.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator

from infra.errors import WrongInput, choices
from training.experiment import Strict

if TYPE_CHECKING:
    import numpy as np

MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
LENGTH = re.compile(r"([1-9][0-9]{0,3})([hdw])")
Kind = Literal["input", "prediction", "estimated", "real"]
HOURS = {"h": 1, "d": 24, "w": 168}


@dataclass(frozen=True)
class Window:
    """How the time of an inference log is divided."""

    hours: int
    """0: by calendar months."""

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Raises ValueError."""
        found = LENGTH.fullmatch(text)
        if text != "month" and not found:
            raise ValueError(f"'{text}' is no window; write 24h, 7d, 2w or month")
        return cls(int(found[1]) * HOURS[found[2]] if found else 0)

    def starts(self, times: "np.ndarray") -> "np.ndarray":
        """The beginning of each time's window; both datetime64[s], UTC."""
        import numpy as np

        if not self.hours:
            return times.astype("datetime64[M]").astype("datetime64[s]")
        first, length = np.datetime64(MONDAY.replace(tzinfo=None), "s"), np.timedelta64(self.hours * 3600, "s")
        return first + (times - first) // length * length

    def end(self, start: datetime) -> datetime:
        if self.hours:
            return start + timedelta(hours=self.hours)
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)

    def back(self, now: datetime, count: int) -> datetime:
        """About so many windows before now."""
        return now - count * timedelta(hours=self.hours or 31 * 24)


class MonitorPolicy(Strict):
    window: str = "7d"
    """A whole number of hours, days or weeks (24h, 7d, 2w), or `month`."""
    alarm: tuple[Literal["input", "prediction", "estimated", "real"], ...] = (
        "input",
        "prediction",
        "estimated",
        "real",
    )
    """What is an alarm: drift of what the model sees, of what it says, its estimated accuracy, its real one."""
    alpha: float = Field(0.005, gt=0, lt=1)
    """How often chance alone may make a window drift, all its comparisons together. Smaller than the contract's own,
    which is for two versions compared once: windows come for ever."""
    drop: float = Field(0.05, gt=0, lt=1)
    """How far below the test split's accuracy an estimated or real one may fall, its interval included."""
    minimum_rows: int = Field(50, ge=1)
    """A window with fewer rows is shown and not judged."""
    within: str = ""
    """An input column: a window is compared with the training rows that have one of its values there. For seasons."""
    time: str = ""
    """A date or timestamp column of the training data: how much its own windows differ is learned from it."""

    @field_validator("window")
    @classmethod
    def _known(cls, text: str) -> str:
        Window.parse(text)
        return text


def parse_monitor(section: Mapping[str, Any], where: str) -> MonitorPolicy:
    """The policy of an experiment's `monitor` section. Raises WrongInput: which field, what was found."""
    for key in section:
        if key not in MonitorPolicy.model_fields:
            raise WrongInput(f"{where}: monitor.{key}: unknown key; {choices(str(key), MonitorPolicy.model_fields)}")
    try:
        return MonitorPolicy(**section)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise WrongInput(f"{where}: monitor.{field}: {said}, found {first['input']!r}") from None
