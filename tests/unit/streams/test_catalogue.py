"""The catalogue follows the registry: rules come, change and go; what does not parse is left out."""

from __future__ import annotations

from typing import Any

from upon.messages import FunctionRecord, RegistryRecord, RuleRecord, SiteStatus, encode, registry_key
from upon.streams.catalogue import Catalogue


def feed(catalogue: Catalogue, *records: RegistryRecord) -> None:
    for record in records:
        catalogue.take_registry(registry_key(record), encode(record))


def rule(name: str, kind: str, version: int = 1, **keys: Any) -> RuleRecord:
    spec = {"name": name, "upon": {"type": [kind]}, "run": {"function": "f"}, **keys}
    return RuleRecord(name=name, version=version, spec=spec)


def matching(catalogue: Catalogue, kind: str) -> list[tuple[str, int]]:
    return [(found.name, found.version) for found in catalogue.matcher.match({"type": kind})]


def test_rules_come_change_and_go() -> None:
    catalogue = Catalogue()
    feed(catalogue, rule("b", "x"), rule("a", "x"))
    assert matching(catalogue, "x") == [("a", 1), ("b", 1)]
    before = catalogue.matcher
    assert catalogue.matcher is before
    feed(catalogue, rule("a", "y", version=2))
    assert matching(catalogue, "x") == [("b", 1)]
    assert matching(catalogue, "y") == [("a", 2)]
    feed(catalogue, rule("b", "x", version=2, enabled=False))
    assert matching(catalogue, "x") == []
    catalogue.take_registry(b"rule/a", None)
    assert matching(catalogue, "y") == []


def test_a_deleted_rule_no_longer_fires_until_it_is_applied_again() -> None:
    catalogue = Catalogue()
    gone = rule("a", "x")
    feed(catalogue, gone, RuleRecord(name="a", version=1, spec=gone.spec, deleted=True))
    assert matching(catalogue, "x") == []
    feed(catalogue, rule("a", "x", version=2))
    assert matching(catalogue, "x") == [("a", 2)]


def test_other_records_leave_the_index_alone() -> None:
    catalogue = Catalogue()
    feed(catalogue, rule("a", "x"))
    before = catalogue.matcher
    feed(catalogue, FunctionRecord(name="f", version=1, code="c"))
    catalogue.take_site(encode(SiteStatus(site="local", pid=1, host="h", at=1)))
    assert catalogue.matcher is before
    assert catalogue.registry.function("f").code == "c"
    assert "local" in catalogue.registry.sites


def test_what_does_not_parse_is_left_out() -> None:
    catalogue = Catalogue()
    feed(catalogue, rule("a", "x"), rule("b", "x"))
    feed(catalogue, rule("a", "x", version=2, where="1 +"))
    catalogue.take_registry(b"rule/c", b"\xc1")
    catalogue.take_registry(b"\xff\xff", None)
    catalogue.take_site(b"\xc1")
    catalogue.take_site(None)
    assert matching(catalogue, "x") == [("b", 1)]
