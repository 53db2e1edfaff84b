"""The commands ``keys ...``: who may use a service that asks for API keys. Heavy imports as in :mod:`app`."""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from autoprune.service.cli import options as opt
from autoprune.service.cli.errors import CommandError

if TYPE_CHECKING:
    from autoprune.service.storage.key_records import KeyRecords
    from autoprune.service.storage.tables import KeyRow

keys_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="API keys of the service in $AUTOPRUNE_HOME; changes count at once, also where it runs.",
)


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.", metavar="NAME")],
    scope: Annotated[
        list[str],
        typer.Option(help="read, write (upload, submit, cancel) or admin (both, without limits); repeat for several."),
    ] = ["read", "write"],  # noqa: B006 - read once by typer
    as_json: opt.Json = False,
) -> None:
    """Make a key and print its token, which is shown this once."""
    from autoprune.service.storage.tables import KeyScope

    for text in scope:
        if text not in list(KeyScope):
            raise CommandError(f"--scope: expected {', '.join(KeyScope)}; found {text!r}")
    with _keys() as keys:
        row, token = keys.create(name, [KeyScope(text) for text in scope])
    if as_json:
        typer.echo(json.dumps({**_data(row), "token": token}, indent=1))
        return
    typer.echo(f"{row.id} may {', '.join(row.scopes)}. Its token is kept nowhere:", err=True)
    typer.echo(token)


@keys_app.command("list")
def list_(as_json: opt.Json = False) -> None:
    """List all keys, without their tokens."""
    with _keys() as keys:
        rows = keys.all()
    if as_json:
        typer.echo(json.dumps([_data(row) for row in rows], indent=1))
        return
    from rich.markup import escape
    from rich.table import Table

    from autoprune.service.cli.console import stdout

    if not rows:
        stdout().print("no API keys yet: autoprune keys create NAME")
        return
    table = Table("id", "name", "scopes", "created", "last used", "revoked")
    for row in rows:
        times = (row.created_at, row.last_used_at, row.revoked_at)
        table.add_row(
            row.id, escape(row.name), ", ".join(row.scopes),
            *("-" if time is None else f"{time:%Y-%m-%d %H:%M} UTC" for time in times),
        )  # fmt: skip
    stdout().print(table)


@keys_app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="As keys list shows it.", metavar="ID")]) -> None:
    """End a key: the next request with it is refused."""
    with _keys() as keys:
        row = keys.revoke(key_id)
    typer.echo(f"revoked: {row.id} ({row.name})")


@contextlib.contextmanager
def _keys() -> Iterator["KeyRecords"]:
    """Open the keys of the service home."""
    from autoprune.service.settings import Settings
    from autoprune.service.storage.key_records import KeyRecords
    from autoprune.service.storage.records import Records

    settings = Settings.from_environment()
    settings.prepare()
    with contextlib.closing(Records(settings.url, create=True)) as records:
        yield KeyRecords(records)


def _data(row: "KeyRow") -> dict[str, object]:
    """Return what anybody may know of a key."""
    times = {name: getattr(row, name) for name in ("created_at", "last_used_at", "revoked_at")}
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes,
        **{name: None if time is None else time.isoformat() for name, time in times.items()},
    }
