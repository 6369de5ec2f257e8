"""The files for cron, systemd, containers and Kubernetes: as far as they can be checked without those."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import typer
import yaml
from apscheduler.triggers.cron import CronTrigger

from pipelines.cli import app
from pipelines.serve import BEAT, SILENT, STOPPING

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "configs" / "deploy"
UNITS = ("forecaster.service", "forecaster-daily.service", "forecaster-daily.timer")
PAGE = ROOT / "docs" / "operations.md"


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def test_every_file_is_known() -> None:
    assert {path.name for path in DEPLOY.iterdir()} == {
        *UNITS,
        "Dockerfile",
        "Dockerfile.dockerignore",
        "forecaster.cron",
        "kubernetes.yaml",
    }


# --- the commands exist ----------------------------------------------------------------------------------


def parse(arguments: list[str]) -> None:
    """Parse a command line as the application does, without running it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, arguments
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context("forecaster", list(arguments), resilient_parsing=False)


def commands(written: str) -> list[list[str]]:
    """Command lines of the application in a text: after its program, up to the end or a shell's operator."""
    found = []
    for line in re.findall(r"(?:bin/forecaster|^forecaster|^docker run .* forecaster) (.+)$", written, re.M):
        words = shlex.split(line, comments=True)
        ends = [number for number, word in enumerate(words) if word in (">>", ">", "&&", "|", "2>&1")]
        found.append(words[: ends[0]] if ends else words)
    return found


@pytest.mark.parametrize("name", [*UNITS[:2], "forecaster.cron"])
def test_commands_of_the_files_exist(name: str) -> None:
    found = commands(text(name))
    assert found, name
    for arguments in found:
        parse(arguments)


def test_commands_of_the_page_exist() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    found = [command for block in blocks for command in commands(block)]
    assert len(found) >= 8
    for arguments in found:
        parse(arguments)


def test_a_command_that_does_not_exist_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["daily", "job.yaml", "--asof", "2024-01-02"])
    with pytest.raises(AssertionError):
        parse(["nightly", "job.yaml"])
    assert commands("a\n50 * * * * me exec /x/bin/forecaster daily j.yaml >> log 2>&1\n") == [
        ["daily", "j.yaml"]
    ]


def test_files_that_the_page_and_the_files_name_exist() -> None:
    for written in (PAGE.read_text(encoding="utf-8"), *(text(path.name) for path in DEPLOY.iterdir())):
        for path in re.findall(r"\b(?:configs|docs)/[\w./-]+\w", written):
            assert (ROOT / path).exists(), path


# --- systemd ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        # The program of the units need not be installed here.
        (tmp_path / name).write_text(text(name).replace("/opt/forecaster/.venv/bin/forecaster", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "forecaster" in line]
    assert said == [], done.stderr
    wrong = tmp_path / "wrong.service"
    wrong.write_text(text("forecaster.service").replace("KillMode=mixed", "KillMod=mixed"))
    again = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(wrong)], capture_output=True, text=True, check=False
    )
    assert "KillMod" in again.stdout + again.stderr


def unit(name: str) -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = {}
    for line in text(name).splitlines():
        if re.fullmatch(r"\[\w+\]", line):
            sections[line[1:-1]] = section = {}
        elif line and not line.startswith("#"):
            key, sign, value = line.partition("=")
            assert sign, line
            section[key] = value
    return sections


def test_systemd_is_as_patient_as_the_service_needs() -> None:
    service = unit("forecaster.service")["Service"]
    assert float(service["TimeoutStopSec"]) > STOPPING
    assert float(service["WatchdogSec"]) > 2 * SILENT * BEAT - 1
    assert (service["Type"], service["RestartPreventExitStatus"]) == ("notify", "2")
    once = unit("forecaster-daily.service")["Service"]
    assert (once["Type"], once["SuccessExitStatus"]) == ("oneshot", "3")
    # The same walls around both.
    keys = [
        key for key in service if key.startswith(("Protect", "Restrict", "Private", "NoNew", "Lock", "UMask"))
    ]
    assert len(keys) >= 9
    assert {key: service[key] for key in keys} == {key: once[key] for key in keys}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_timer_fires_after_the_close() -> None:
    when = unit("forecaster-daily.timer")["Timer"]["OnCalendar"]
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--base-time=2024-07-10 12:00:00 UTC", when],
        capture_output=True,
        text=True,
        check=True,
    )
    # 16:45 in New York in summer.
    assert "2024-07-10 20:45:00 UTC" in done.stdout


# --- cron ------------------------------------------------------------------------------------------------


def test_the_crontab_has_a_time_a_user_and_a_command() -> None:
    lines = [line for line in text("forecaster.cron").splitlines() if line and not line.startswith("#")]
    settings = [line for line in lines if re.match(r"\w+=", line)]
    entries = [line for line in lines if line not in settings]
    assert {line.partition("=")[0] for line in settings} == {"SHELL", "PATH"}
    (entry,) = entries
    *when, user, command = entry.split(maxsplit=6)
    CronTrigger.from_crontab(" ".join(when))
    assert user == "forecaster"
    # cron turns a bare % into a new line.
    assert "%" not in command
    done = subprocess.run(["/bin/sh", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert text("forecaster.cron").endswith("\n"), "cron ignores a last line without an end"


# --- containers ------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, with continued lines joined."""
    joined = re.sub(
        r"\\\n\s*", "", "\n".join(line for line in text("Dockerfile").splitlines() if line[:1] != "#")
    )
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_dockerfile_is_sound() -> None:
    found = instructions()
    known = {"FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in found} <= known
    assert found[0][0] == "FROM"
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    for base in bases:
        assert re.fullmatch(r"python:3\.1[123]-slim", base), base
    assert len(set(bases)) == 1, "what was compiled for one Python is run by another"
    stages = [rest.split()[2] for word, rest in found if word == "FROM" and " AS " in rest]
    for word, rest in found:
        if word == "COPY":
            stage = re.match(r"--from=(\w+) ", rest)
            if stage:
                assert stage[1] in stages
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
        if word == "RUN":
            done = subprocess.run(["/bin/sh", "-n", "-c", rest], capture_output=True, text=True, check=False)
            assert done.stderr == ""
        if word in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(part, str) for part in json.loads(rest))
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    users = [rest for word, rest in found[last:] if word == "USER"]
    assert len(users) == 1
    assert int(users[0]) > 0, "not as root, by number, so that Kubernetes can see it"
    assert all(
        "pip install" not in rest or "--require-hashes" in rest or "--no-deps" in rest for _, rest in found
    )
    assert json.loads(next(rest for word, rest in found if word == "ENTRYPOINT")) == ["forecaster"]


def test_the_driver_of_postgresql_comes_from_the_lock_with_its_hashes() -> None:
    command = re.search(
        r"(awk .*? requirements-dev\.lock)", next(r for w, r in instructions() if w == "RUN" and "awk" in r)
    )
    assert command
    done = subprocess.run(command[1], shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^([a-z-]+)==", done.stdout, re.M) == ["psycopg", "psycopg-binary"]
    assert done.stdout.count("--hash=sha256:") > 2
    assert all(line.startswith(("psycopg", "    --hash")) for line in done.stdout.splitlines())


def test_what_the_image_copies_is_not_ignored_and_nothing_else_is_sent() -> None:
    lines = [line for line in text("Dockerfile.dockerignore").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == kept


# --- Kubernetes ------------------------------------------------------------------------------------------

# Fields of the API (v1, batch/v1) that are used, by the path they stand at; a name that is not here is a
# mistake or must be looked up there. A star stands for any name, [] for a list.
FIELDS = {
    "": "apiVersion kind metadata spec",
    "metadata": "name labels",
    "metadata.labels": "*",
    "PersistentVolumeClaim.spec": "accessModes resources",
    "PersistentVolumeClaim.spec.resources": "requests",
    "PersistentVolumeClaim.spec.resources.requests": "storage",
    "CronJob.spec": "schedule timeZone concurrencyPolicy startingDeadlineSeconds successfulJobsHistoryLimit "
    "failedJobsHistoryLimit jobTemplate",
    "CronJob.spec.jobTemplate": "spec",
    "CronJob.spec.jobTemplate.spec": "backoffLimit activeDeadlineSeconds ttlSecondsAfterFinished "
    "podFailurePolicy template",
    "CronJob.spec.jobTemplate.spec.podFailurePolicy": "rules",
    "CronJob.spec.jobTemplate.spec.podFailurePolicy.rules[]": "action onExitCodes",
    "CronJob.spec.jobTemplate.spec.podFailurePolicy.rules[].onExitCodes": "containerName operator values",
    "CronJob.spec.jobTemplate.spec.template": "metadata spec",
    "pod": "restartPolicy automountServiceAccountToken terminationGracePeriodSeconds securityContext "
    "containers volumes",
    "pod.securityContext": "runAsNonRoot runAsUser fsGroup seccompProfile",
    "pod.securityContext.seccompProfile": "type",
    "pod.containers[]": "name image args envFrom resources securityContext volumeMounts",
    "pod.containers[].envFrom[]": "secretRef",
    "pod.containers[].envFrom[].secretRef": "name optional",
    "pod.containers[].resources": "requests limits",
    "pod.containers[].resources.requests": "cpu memory",
    "pod.containers[].resources.limits": "memory",
    "pod.containers[].securityContext": "allowPrivilegeEscalation readOnlyRootFilesystem capabilities",
    "pod.containers[].securityContext.capabilities": "drop",
    "pod.containers[].volumeMounts[]": "name mountPath readOnly",
    "pod.volumes[]": "name persistentVolumeClaim configMap emptyDir",
    "pod.volumes[].persistentVolumeClaim": "claimName",
    "pod.volumes[].configMap": "name",
    "pod.volumes[].emptyDir": "",
}  # fmt: skip


def unknown(node: Any, kind: str, path: str = "") -> list[str]:
    """Fields of a document that the table does not know."""
    if isinstance(node, list):
        return [each for item in node for each in unknown(item, kind, f"{path}[]")]
    if not isinstance(node, dict):
        return []
    place = path.replace("CronJob.spec.jobTemplate.spec.template.spec", "pod")
    place = "metadata" + place.rpartition("metadata")[2] if "metadata" in place else place
    allowed = FIELDS[place].split()
    found = [f"{path}.{key}" for key in node if key not in allowed and allowed != ["*"]]
    for key, value in node.items():
        if f"{path}.{key}" not in found:
            below = f"{path}.{key}" if path else (f"{kind}.{key}" if key == "spec" else key)
            found += unknown(value, kind, below)
    return found


DOCUMENTS = list(yaml.safe_load_all(text("kubernetes.yaml")))


def test_kubernetes_knows_every_field() -> None:
    assert [(each["apiVersion"], each["kind"]) for each in DOCUMENTS] == [
        ("v1", "PersistentVolumeClaim"),
        ("batch/v1", "CronJob"),
    ]
    for each in DOCUMENTS:
        assert unknown(each, each["kind"]) == []
    wrong = yaml.safe_load(text("kubernetes.yaml").split("---")[1].replace("backoffLimit", "backOffLimit"))
    assert unknown(wrong, "CronJob") == ["CronJob.spec.jobTemplate.spec.backOffLimit"]


def test_the_cronjob_is_what_the_application_needs() -> None:
    claim, job = DOCUMENTS
    spec = job["spec"]
    CronTrigger.from_crontab(spec["schedule"])
    ZoneInfo(spec["timeZone"])
    assert spec["concurrencyPolicy"] == "Forbid"
    work = spec["jobTemplate"]["spec"]
    pod = work["template"]["spec"]
    (container,) = pod["containers"]
    parse(container["args"])
    # A policy about failures of a pod needs pods that are not restarted.
    assert pod["restartPolicy"] == "Never"
    (rule,) = work["podFailurePolicy"]["rules"]
    assert (rule["onExitCodes"]["containerName"], rule["onExitCodes"]["values"]) == (container["name"], [2])
    mounts, volumes = container["volumeMounts"], pod["volumes"]
    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in volumes}
    assert (
        next(v for v in volumes if v["name"] == "data")["persistentVolumeClaim"]["claimName"]
        == claim["metadata"]["name"]
    )
    data = next(mount["mountPath"] for mount in mounts if mount["name"] == "data")
    assert ("WORKDIR", data) in instructions()
    assert ("USER", str(pod["securityContext"]["runAsUser"])) in instructions()
    assert pod["terminationGracePeriodSeconds"] > STOPPING
    assert not pod["automountServiceAccountToken"]
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version
    assert container["image"] == f"forecaster:{version[1]}"
