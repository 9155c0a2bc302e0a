"""`upon rules`: check, apply, list and delete the rules that say which event runs what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.options import HomeOption, JsonOption, connect

if TYPE_CHECKING:
    from upon.errors import RuleError

app = typer.Typer(help="Check, apply, list and delete rules.")
Files = Annotated[list[Path], typer.Argument(help="YAML files of rules", metavar="FILE…")]


@app.command()
def check(files: Files, as_json: JsonOption = False) -> None:
    """Check rules without any system running. Prints every error as FILE:LINE:COLUMN: field: what; exit code 2 then.

    Example: upon rules check rules.yaml
    """
    from upon.cli.output import print_json

    errors, good = [], 0
    for file in files:
        found, count = _check(file)
        errors += found
        good += count
    if as_json:
        names = ("file", "line", "column", "field", "problem")
        print_json([{name: getattr(error, name) for name in names} for error in errors])
    else:
        for error in errors:
            typer.echo(str(error))
        if not errors:
            typer.echo(f"{good} {'rule is' if good == 1 else 'rules are'} fine")
    if errors:
        raise typer.Exit(2)


@app.command()
def apply(files: Files, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Put rules in force at once. Each file is applied whole or, if anything in it is wrong, not at all.

    Example: upon rules apply rules.yaml
    """
    from upon.cli.output import print_json

    texts = [(file, _read(file)) for file in files]
    errors = [error for file in files for error in _check(file)[0]]
    if errors:
        for error in errors:
            typer.echo(str(error), err=True)
        raise typer.Exit(2)
    with connect(home) as client:
        applied = [rule for file, text in texts for rule in client.apply_rules(text, str(file))]
    if as_json:
        print_json(applied)
        return
    for rule in applied:
        typer.echo(f"applied {rule.name}@{rule.revision}")


@app.command("list")
def list_(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the rules in force.

    Example: upon rules list
    """
    from upon.cli.output import print_json, print_table, short, when

    with connect(home) as client:
        found = client.rules()
    if as_json:
        print_json(found)
        return
    rows = []
    for rule in found:
        run = rule.spec.get("run") or {}
        site = run.get("site", "local")
        sites = ", ".join(map(str, site)) if isinstance(site, list) else site
        types = (rule.spec.get("upon") or {}).get("type", ["any"])
        event = [one if isinstance(one, str) else short(one) for one in (types if isinstance(types, list) else [types])]
        created = when(rule.created)
        rows.append((rule.name, rule.revision, ", ".join(event), run.get("function"), sites, rule.file, created))
    print_table(
        ("name", "revision", "upon", "runs", "at", "file", "applied"),
        rows,
        "no rules yet; `upon rules apply FILE` adds some",
    )


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="names of rules", metavar="NAME…")], home: HomeOption = None
) -> None:
    """Take rules out of force. What they have fired runs on.

    Example: upon rules delete thumbnail-of-each-image
    """
    with connect(home) as client:
        for name in names:
            client.delete_rule(name)
            typer.echo(f"deleted {name}")


def _read(file: Path) -> str:
    from upon.errors import InputError

    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _check(file: Path) -> tuple[list[RuleError], int]:
    """Return what is wrong in a file, and how many rules it has if nothing is."""
    from upon.errors import ConfigError

    text = _read(file)
    try:
        from upon.streams.rules import check_rules, parse_rules
    except ModuleNotFoundError as error:
        raise ConfigError(f"checking rules needs {error.name}: pip install 'upon[streams]'") from error
    errors = check_rules(text, str(file))
    return errors, 0 if errors else len(parse_rules(text, str(file)))
