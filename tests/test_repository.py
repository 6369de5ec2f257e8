"""The repository itself: its top level, its locks, its licence, and nothing that ties it to a machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE, DEVELOPMENT, PEERS = "requirements.lock", "requirements-dev.lock", "requirements-peers.lock"

TOP_LEVEL = {
    # the house
    "README.md", "configs", "dashboards", "forecaster", "pipelines", "pyproject.toml", "tests",
    # what people read
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs",
    # what tools need
    ".ci", ".dockerignore", ".gitattributes", ".gitignore", ".pre-commit-config.yaml", "Dockerfile",
    "Makefile", "zensical.toml", CORE, DEVELOPMENT, PEERS,
}  # fmt: skip

# Spelt in two halves, so that this file does not name them.
HOSTS = re.compile(
    "|".join(
        re.escape(first + second)
        for first, second in [
            ("pypi", ".org"),
            ("pypi", ".python.org"),
            ("python", "hosted"),
            ("npm", "js."),
            ("yarn", "pkg."),
            ("crates", ".io"),
            ("ruby", "gems.org"),
            ("anaconda", ".org"),
            ("anaconda", ".com"),
            ("proxy.go", "lang.org"),
        ]
    ),
    re.IGNORECASE,
)
# A path of one machine, not the tail of a URL or of a relative path.
MACHINE = re.compile(r"(?<![\w.~/-])/(?:root|home|work|Users)/")


def tracked() -> list[Path]:
    """Every file that is in the repository, or would be with the next ``git add``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def lines(paths: list[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_no_file_names_a_registry_or_a_path_of_this_machine() -> None:
    found = [(where, line) for where, line in lines(tracked()) if HOSTS.search(line) or MACHINE.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "host", "machine"),
    [
        ("--index-url https://" + "pypi" + ".org/simple", True, False),
        ("https://files." + "python" + "hosted.org/packages/a.whl", True, False),
        ("cd /" + "root/checkout", False, True),
        ('"/' + 'home/somebody/.venv"', False, True),
        ("see https://example.org/" + "home/page and docs/" + "work/notes.md", False, False),
        ("the tests of homework and roots/", False, False),
    ],
)
def test_what_ties_to_a_machine_is_recognised(text: str, host: bool, machine: bool) -> None:
    assert (bool(HOSTS.search(text)), bool(MACHINE.search(text))) == (host, machine)


def test_the_top_level_is_fixed() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert names - TOP_LEVEL == set(), "a new name at the top level needs a reason, and a line in TOP_LEVEL"
    assert names >= {
        "Makefile",
        "LICENSE",
        "README.md",
        CORE,
        DEVELOPMENT,
        "forecaster",
        "pipelines",
        "tests",
    }


def test_the_locks_are_the_only_locks() -> None:
    names = {path.name for path in tracked()}
    assert {name for name in names if name.endswith(".lock")} == {CORE, DEVELOPMENT, PEERS}
    assert not names & {"requirements.txt", "poetry.lock", "Pipfile", "environment.yml"}


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text.splitlines()[1]
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]


def pins(lock: str) -> dict[str, str]:
    """Map each package of a lock to its version; an entry that is not pinned with a hash is an error."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=\S)", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE):
        if not entry:
            continue
        pattern = r"([A-Za-z0-9._-]+)==([^\s;]+)(?: ; [^\\\n]+?)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
        match = re.fullmatch(pattern, entry)
        assert match, f"{lock}: not a pin with its hashes: {entry.splitlines()[0]}"
        name = canonicalize_name(match[1])
        assert name not in found, f"{lock} pins {name} twice"
        found[name] = match[2]
    return found


def missing(requirements: list[str], pinned: dict[str, str]) -> list[str]:
    """Return the requirements that the pins do not meet; an extra of the project stands for what it lists."""
    unmet: list[str] = []
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == PROJECT["project"]["name"]:
            for extra in requirement.extras:
                unmet += missing(PROJECT["project"]["optional-dependencies"][extra], pinned)
        elif name not in pinned or not requirement.specifier.contains(pinned[name]):
            unmet.append(f"{text} (pinned: {pinned.get(name)})")
    return unmet


def test_the_core_lock_meets_the_project() -> None:
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]
    assert missing(wanted, pins(CORE)) == [], "run `make lock`"


def test_the_development_lock_meets_the_dev_extra_and_holds_every_pin_of_the_core() -> None:
    development = pins(DEVELOPMENT)
    assert missing(PROJECT["project"]["optional-dependencies"]["dev"], development) == [], "run `make lock`"
    assert pins(CORE).items() <= development.items(), "run `make lock`"


def test_the_lock_of_the_peers_meets_their_list() -> None:
    listed = (ROOT / "tests" / "benchmarks" / "peers.in").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in listed if line and not line.startswith("#")]
    assert wanted
    assert missing(wanted, pins(PEERS)) == [], "run `make lock-peers`"


def test_the_build_group_installs_the_build_backend() -> None:
    # .ci/setup builds without isolation, so what the backend requires must be in the locks.
    assert missing(PROJECT["build-system"]["requires"], pins(CORE)) == []
    assert set(PROJECT["build-system"]["requires"]) <= set(PROJECT["dependency-groups"]["build"])


def test_a_requirement_that_the_pins_do_not_meet_is_found() -> None:
    pinned = {"numpy": "2.4.6"}
    assert missing(["numpy>=2.0"], pinned) == []
    assert missing(["numpy>=3", "SciPy"], pinned) == ["numpy>=3 (pinned: 2.4.6)", "SciPy (pinned: None)"]
    assert "skfolio>=0.11 (pinned: None)" in missing(["forecaster[samples]"], pinned)


def test_nothing_in_the_code_is_unsafe() -> None:
    """As `make security` does; what is excused says so in its line."""
    program = Path(sys.executable).with_name("bandit")
    folders = ["forecaster", "pipelines", "dashboards"]
    done = subprocess.run(
        [program, "--quiet", "--recursive", "--severity-level", "medium", *folders],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
