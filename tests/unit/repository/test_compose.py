"""docker-compose.yml names only commands, variables and ports that exist in the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from upon.cli.part import MAINS
from upon.config import Settings

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "upon"}


def test_all_parts_but_sources_have_a_container() -> None:
    assert {tuple(service["command"]) for service in OURS.values()} == {
        ("part", name) for name in MAINS if name != "sources"
    }
    assert COMPOSE["services"]["streams"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", OURS)
def test_each_variable_is_a_setting(name: str) -> None:
    for variable in OURS[name]["environment"]:
        prefix, _, field = variable.partition("_")
        assert prefix == "UPON"
        assert field.lower() in Settings.model_fields


@pytest.mark.parametrize("name", OURS)
def test_each_address_is_that_of_a_container_and_its_port(name: str) -> None:
    environment = OURS[name]["environment"]
    if "UPON_KAFKA" in environment:
        host, _, port = environment["UPON_KAFKA"].partition(":")
        listeners = COMPOSE["services"][host]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
        assert f"PLAINTEXT://{host}:{port}" in listeners
    if name == "manager":
        match = re.fullmatch(r"tcp://(\w+):(\d+)", environment["UPON_DISPATCHER"])
        assert match is not None
        assert OURS[match[1]]["environment"]["UPON_DISPATCHER"].endswith(f":{match[2]}")


def test_the_published_port_is_the_one_the_service_listens_on() -> None:
    service = OURS["service"]
    inside = service["environment"]["UPON_LISTEN"].rpartition(":")[2]
    assert [port.rpartition(":")[2] for port in service["ports"]] == [inside]


def test_needed_containers_and_volumes_exist() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= set(COMPOSE["volumes"])


def test_the_dockerfile_copies_every_package_and_runs_the_command() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    links = {path.name for path in (ROOT / "src" / "upon").iterdir() if path.is_symlink()}
    assert links == set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE)) - {"src"}
    assert 'ENTRYPOINT ["upon"]' in dockerfile
    home = re.search(r"UPON_HOME=(\S+)", dockerfile)
    assert home is not None
    assert {volume.rpartition(":")[2] for name in ("dispatcher", "manager") for volume in OURS[name]["volumes"]} == {
        home[1]
    }


def test_the_largest_record_is_the_same_in_the_container_and_the_code() -> None:
    from upon.messages import MAX_RECORD

    assert COMPOSE["services"]["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"] == MAX_RECORD
