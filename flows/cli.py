"""The command line. Commands live in `flows/commands/`, a file a group; nothing heavy is imported early."""

import sys
import traceback
from typing import Any

import click

import flows.commands.draft  # adds itself to `data`, as two of the next do; `records` to `recipes`
import flows.commands.drift
import flows.commands.records
import flows.commands.versions  # noqa: F401
from flows.commands import (
    data,
    experiments,
    garbage,
    gates,
    models,
    pipeline,
    promotion,
    prove,
    review,
    schedule,
    serving,
    workspace,
)
from infra import interrupt
from infra.errors import SlipwayError
from infra.secret import redact

SECTIONS = {
    "Start": ["demo", "init", "up", "down", "status", "doctor"],
    "Data": ["data", "sources"],
    "Train": ["plan", "train", "runs", "stop", "compare", "recipes"],
    "Judge": ["evaluate", "gate", "gates", "review"],
    "Promote": ["keygen", "policy", "approve", "reject", "promote", "rollback", "champion", "history", "verify"],
    "Use": ["predict", "serve", "monitor", "retrain", "schedule"],
    "Keep": ["gc"],
    "Prove": ["prove"],
}


class Sections(click.Group):
    """A group whose help lists its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(70)) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it; a command that stands in a group is named with its group."""
        for group, commands in self.commands.items():
            if args[0] not in self.commands and isinstance(commands, click.Group) and args[0] in commands.commands:
                raise click.UsageError(f"No such command '{args[0]}'; did you mean 'slipway {group} {args[0]}'?", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slipway", prog_name="slipway")
def cli() -> None:
    """From a data set to a model that production may trust.

    Example: slipway demo
    """


for group in (
    workspace,
    data,
    pipeline,
    experiments,
    gates,
    models,
    serving,
    review,
    promotion,
    schedule,
    garbage,
    prove,
):
    for command in group.COMMANDS:
        cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 said no, 130 interrupted."""
    code: Any = 0
    interrupt.watch()
    sys.excepthook = _tell_bug
    try:
        code = cli.main(arguments, prog_name="slipway", standalone_mode=False)
    except SlipwayError as error:
        code = _complain(str(error), error.exit_code)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "slipway"
        code = _complain(f"{error.format_message()} (see {path} --help)", 2)
    except click.ClickException as error:
        code = _complain(error.format_message(), 2)
    except BrokenPipeError:
        code = 0  # the reader (head, less) has seen enough
    except BaseException as error:
        if not interrupt.asked() and not isinstance(error, KeyboardInterrupt | click.Abort):
            raise
        code = _complain("interrupted; the same command goes on from where it stood", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _tell_bug(*found: Any) -> None:
    """A traceback, without the secrets that a library's words may hold."""
    print(redact("".join(traceback.format_exception(*found))), end="", file=sys.stderr)


def _complain(message: str, code: int) -> int:
    print(f"slipway: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
