"""`upon rules`: check, apply, list, compare, roll back, disable and delete the rules that say which event runs what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.options import HomeOption, JsonOption, connect

if TYPE_CHECKING:
    from upon.api import Rule
    from upon.errors import RuleError
    from upon.sdk.client import Client

app = typer.Typer(help="Check, apply, list, compare, roll back, disable and delete rules.")
Files = Annotated[list[Path], typer.Argument(help="YAML files of rules", metavar="FILE…")]
Name = Annotated[str, typer.Argument(help="name of a rule", metavar="NAME")]
Names = Annotated[list[str], typer.Argument(help="names of rules", metavar="NAME…")]


@app.command()
def check(files: Files, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Check rules. Prints every error as FILE:LINE:COLUMN: field: what; exit code 2 then.

    No system needs to run. If one does, it is asked what is probably not meant: functions, sites and fields that are
    not there.

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
            _warn(_asked(files, home))
            typer.echo(f"{good} {'rule is' if good == 1 else 'rules are'} fine")
    if errors:
        raise typer.Exit(2)


@app.command()
def apply(
    files: Files,
    *,
    again: Annotated[bool, typer.Option("--again", help="fire again for what the rules have fired for")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="delete what came from the file and is not in it now")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Put rules in force at once. Each file is applied whole or, if anything in it is wrong, not at all.

    Example: upon rules apply rules.yaml
    """
    from upon.cli.attention import attention
    from upon.cli.output import print_json

    texts = [(file, _read(file)) for file in files]
    errors = [error for file in files for error in _check(file)[0]]
    if errors:
        for error in errors:
            typer.echo(str(error), err=True)
        raise typer.Exit(2)
    with connect(home) as client:
        applied = [
            rule for file, text in texts for rule in client.apply_rules(text, origin(file), again=again, prune=prune)
        ]
        told = [] if as_json else attention(client.summary())
    if as_json:
        print_json(applied)
        return
    _warn(applied)
    for rule in applied:
        typer.echo(_said(rule))
    for line in told:
        typer.echo(f"there are {line}" if line[0].isdigit() else line, err=True)


@app.command()
def prune(files: Files, home: HomeOption = None) -> None:
    """Delete the rules that came from a file and are not in it any more; change nothing else.

    Example: upon rules prune rules.yaml
    """
    with connect(home) as client:
        gone = [rule for file in files for rule in client.prune_rules(_read(file), origin(file))]
    for rule in gone:
        typer.echo(_said(rule))
    if not gone:
        typer.echo("nothing to delete")


@app.command()
def show(name: Name, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Show a rule as it stands, in YAML; NAME@REVISION for an earlier wording.

    Example: upon rules show thumbnails@2
    """
    from upon.cli.output import print_json, when

    with connect(home) as client:
        rule = _wording(client, name)
    if as_json:
        print_json(rule)
        return
    state = "deleted" if not rule.revision else "in force" if rule.enabled else "disabled"
    typer.echo(f"# {name.partition('@')[0]}@{rule.revision}, epoch {rule.epoch}, {state}, since {when(rule.since)}")
    typer.echo(f"# from {rule.file}, by {rule.principal}, {when(rule.created)}")
    typer.echo(_yaml({"rules": [rule.spec]}))


@app.command()
def history(name: Name, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List how a rule stood, newest first.

    Example: upon rules history thumbnails
    """
    from upon.cli.output import print_json, print_table, when

    with connect(home) as client:
        found = client.rule_history(name)
    if as_json:
        print_json(found)
        return
    rows = (
        (when(one.rule.since), one.action, one.rule.revision or "deleted", one.rule.epoch,
         "" if one.rule.enabled else "disabled", one.rule.file, one.by)
        for one in found
    )  # fmt: skip
    print_table(("since", "asked", "revision", "epoch", "", "file", "by"), rows, "")


@app.command()
def diff(
    name: Name,
    revisions: Annotated[list[int] | None, typer.Argument(help="one revision, or two", metavar="[REVISION…]")] = None,
    home: HomeOption = None,
) -> None:
    """Show what changed in a rule: from the wording before to the one now, or between revisions.

    Example: upon rules diff thumbnails 1 3
    """
    import difflib

    from upon.errors import InputError

    if len(revisions or ()) > 2:
        raise InputError("revisions: one, or two")
    with connect(home) as client:
        history = client.rule_history(name)
    wordings = {one.rule.revision: one.rule for one in history if one.rule.revision}
    stood = [one.rule.revision for one in history if one.rule.revision]
    to = revisions[1] if revisions and len(revisions) == 2 else stood[0]
    before = revisions[0] if revisions else next((one for one in stood if one != to), to)
    for revision in (before, to):
        if revision not in wordings:
            raise InputError(f"rule {name!r} never stood in revision {revision}; it did in {sorted(wordings)}")
    old, new = (_yaml(wordings[one].spec).splitlines() for one in (before, to))
    for line in difflib.unified_diff(old, new, f"{name}@{before}", f"{name}@{to}", lineterm=""):
        typer.echo(line)


@app.command()
def rollback(
    name: Name,
    revision: Annotated[int | None, typer.Argument(help="default: the one before", min=1)] = None,
    home: HomeOption = None,
) -> None:
    """Put an earlier revision of a rule in force.

    Example: upon rules rollback thumbnails 2
    """
    with connect(home) as client:
        typer.echo(_said(client.rollback_rule(name, revision)))


@app.command()
def enable(names: Names, home: HomeOption = None) -> None:
    """Let rules fire again that were disabled.

    Example: upon rules enable thumbnails
    """
    with connect(home) as client:
        for name in names:
            typer.echo(_said(client.enable_rule(name)))


@app.command()
def disable(names: Names, home: HomeOption = None) -> None:
    """Keep rules from firing until they are enabled, also when their file is applied again.

    Example: upon rules disable thumbnails
    """
    with connect(home) as client:
        for name in names:
            typer.echo(_said(client.enable_rule(name, False)))


@app.command("list")
def list_(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the rules there are, newest first.

    Example: upon rules list
    """
    from upon.cli.output import print_json, print_table, short, when

    with connect(home) as client:
        found = sorted(client.rules(), key=lambda rule: rule.since, reverse=True)
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
def delete(names: Names, home: HomeOption = None) -> None:
    """Take rules out of force. What they have fired runs on.

    Example: upon rules delete thumbnail-of-each-image
    """
    with connect(home) as client:
        for name in names:
            client.delete_rule(name)
            typer.echo(f"deleted {name}")


def origin(file: Path) -> str:
    """Return what says that rules came from this very file: `--prune` must not take another one's for it."""
    return str(file.absolute())


def _said(rule: Rule) -> str:
    """Return in a line what became of a rule."""
    named = f"{rule.name}@{rule.revision}" if rule.revision else rule.name
    match rule.change:
        case "deleted":
            said = f"deleted {named}"
        case "enabled" | "disabled" | "rolled back":
            said = f"{rule.change} {named}"
        case "again":
            said = f"applied {named} (fires again: epoch {rule.epoch})"
        case _:
            said = f"applied {named}"
    held = rule.revision and rule.disabled_by_hand and rule.change != "disabled"
    return f"{said} (disabled by hand; `upon rules enable {rule.name}` lets it fire)" if held else said


def _warn(rules: list[Rule]) -> None:
    for rule in rules:
        for warning in rule.warnings:
            typer.echo(f"warning: rule {rule.name}: {warning}", err=True)


def _asked(files: list[Path], home: Path | None) -> list[Rule]:
    """Return what a running system says of the rules; nothing if none runs."""
    from upon.errors import ConfigError, ServiceError

    try:
        with connect(home, patience=0.5) as client:
            return [rule for file in files for rule in client.check_rules(_read(file), str(file))]
    except (ServiceError, ConfigError):
        return []


def _wording(client: Client, name: str) -> Rule:
    """Return a rule as it stands, or in the revision that NAME@REVISION names."""
    from upon.errors import RuleNotFound

    name, at, revision = name.partition("@")
    history = client.rule_history(name)
    if not at:
        return history[0].rule
    found = next((one.rule for one in history if str(one.rule.revision) == revision), None)
    if found is None:
        there = sorted({one.rule.revision for one in history if one.rule.revision})
        raise RuleNotFound(f"rule {name!r} never stood in revision {revision}; it did in {there}")
    return found


def _yaml(data: object) -> str:
    from upon.errors import ConfigError

    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError("showing rules needs yaml: pip install 'upon[streams]'") from error
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True)).rstrip()


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
