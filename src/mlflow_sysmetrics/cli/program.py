"""The program `mlflow-sysmetrics`: its help, how it reports a wrong command line, its exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any

import click

from mlflow_sysmetrics.cli.output import CLOSED, closed, complain, say, wrapped
from mlflow_sysmetrics.runtime.distribution import installed_version

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
#: exit code -> what it means, for those that every command has; 130 and 141 are what shells use
EXITS = {
    WRONG_USE: "the command line is wrong; nothing was done",
    INTERRUPTED: "interrupted with Ctrl-C",
    CLOSED: "the output was closed by what read it, as head -1 does",
}
_WIDEST_TERM = 30  # columns; the text of a longer one begins in the next line


class _Formatter(click.HelpFormatter):
    """Wraps at spaces only, so that the name of an option stays in one piece, and shortens nothing."""

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        paragraphs = (wrapped(indent, one, indent=indent) for one in text.split("\n\n"))
        self.write("\n\n".join(paragraphs) + "\n")

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = _WIDEST_TERM, col_spacing: int = 2
    ) -> None:
        rows = list(rows)
        width = min(max((len(term) for term, _ in rows), default=0), col_max)
        for term, text in rows:
            head = f"{'':{self.current_indent}}{term.ljust(width)}{'':{col_spacing}}"
            indent = " " * (self.current_indent + width + col_spacing)
            if len(term) > width:
                self.write(head.rstrip() + "\n")
                head = indent
            self.write(wrapped(head, text, indent=indent) + "\n")


class _Context(click.Context):
    formatter_class = _Formatter


class Command(click.Command):
    """A command without arguments of its own, only options.

    Args:
        exits: exit code -> what it means for this command; `EXITS` adds those that all have.
    """

    context_class = _Context

    def __init__(self, *args: Any, exits: Mapping[int, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.exits = dict(sorted({**exits, **EXITS}.items()))
        self.allow_extra_args = True  # refused below, in our words

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options; an error says for which command."""
        rest = _parsed(super().parse_args, ctx, args)
        if rest and not ctx.resilient_parsing:
            given = ", ".join(map(repr, rest))
            raise click.UsageError(f"{ctx.command_path} must have options only, got {given}", ctx)
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes what each exit code means."""
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in self.exits.items()])


class Group(click.Group):
    """A group of commands, each of which is imported when it is needed.

    Args:
        homes: name of a command -> the module that has it under the same name, with "_" for "-".
    """

    context_class = _Context

    def __init__(self, *args: Any, homes: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **attributes})
        self._homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands."""
        del ctx
        return sorted(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command; None if there is none of this name."""
        del ctx
        if cmd_name not in self._homes:
            return None
        found = getattr(import_module(self._homes[cmd_name]), cmd_name.replace("-", "_"))
        return found if isinstance(found, click.Command) else None

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parses a command line, and prints the help that it asks for."""
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            raise closed(sys.stdout) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options; without any argument, prints the help and exits."""
        if not args and not ctx.resilient_parsing:
            say(ctx.get_help(), err=True)
            ctx.exit(WRONG_USE)
        return _parsed(super().parse_args, ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command of a command line."""
        names = self.list_commands(ctx)
        if args[0] in names or ctx.resilient_parsing or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(
            f"the command must be one of {', '.join(names)}, got {args[0]!r}{_guess(args[0], names)}", ctx
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes each command with its summary, which is not cut where it is long."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.short_help or "") for name, one in found if one is not None])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> Any:
        """Runs a command line and exits with its code; prints errors in lines that fit the terminal."""
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            code = _reported(run)
        except click.exceptions.Exit as error:  # the standard error was closed
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else DONE)


def _parsed(parse: Any, ctx: click.Context, args: list[str]) -> list[str]:
    try:
        rest: list[str] = parse(ctx, args)
    except click.UsageError as error:
        error.ctx = error.ctx or ctx  # click's parser does not always say which command it is about
        raise
    return rest


def _reported(run: Callable[[], Any]) -> Any:
    """Returns what a command line returns, or an exit code if it fails; prints why."""
    try:
        return run()
    except click.ClickException as error:
        _report(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("Interrupted.", err=True)
        return INTERRUPTED


def _report(error: click.ClickException) -> None:
    """Prints an error: what must hold, what was given, and where to read more."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        say(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n", err=True)
    complain(_message(error))


def _message(error: click.ClickException) -> str:
    match error:
        case click.NoSuchOption(ctx=click.Context() as ctx):
            known = [
                name for option in ctx.command.get_params(ctx) for name in option.opts if name[1:2] == "-"
            ]
            guess = _guess(error.option_name, known)
            return f"an option must be one of {', '.join(known)}, got {error.option_name}{guess}"
        case click.BadOptionUsage(ctx=click.Context() as ctx, option_name=name):
            used = next(one for one in ctx.command.get_params(ctx) if name in one.opts)
            if getattr(used, "is_flag", False):
                return f"{name} is a switch and must be given without a value"
            return f"{name} must be followed by a value: {name} {used.metavar}"
        case click.BadParameter():
            return f"{_source(error)} {error.message}"
    return error.format_message()


def _source(error: click.BadParameter) -> str:
    """Returns where a value came from: the option, or the variable that stands in for it."""
    option, ctx = error.param, error.ctx
    if option is None or ctx is None or option.name is None:
        return str(error.param_hint)
    if ctx.get_parameter_source(option.name) is click.core.ParameterSource.ENVIRONMENT:
        return str(option.envvar)
    return max(option.opts, key=len)


def _guess(given: str, known: Iterable[str]) -> str:
    near = get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Stopped(BaseException):
    """A signal asked this command to stop; not an Exception, which the running code might catch."""


@contextmanager
def raising_on_signals() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM raise in the block; further signals are ignored, so that cleanup completes.

    A signal that is already ignored stays ignored: ``nohup`` ignores the one that a closed terminal sends.
    """
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [one for one in known if signal.getsignal(one) != signal.SIG_IGN]

    def stop(_number: int, _frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped

    before = [(one, signal.signal(one, stop)) for one in handled]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted and not ctx.resilient_parsing:
        say(f"mlflow-sysmetrics {installed_version() or '(not installed, only importable)'}")
        ctx.exit()


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    homes={
        name: f"mlflow_sysmetrics.cli.{name.replace('-', '_')}"
        for name in (
            *("check", "doctor", "node-agent", "reap", "report", "server", "status", "sync"),
            "watch",
        )
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Check tracking before a job, sample a node, watch and recover runs, and report what they did."""
