"""What lies in deploy/, and docs/deployment.md: it names only what there is, and leaves time to stop."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from crm_sync.cli import cli
from crm_sync.settings import Settings, setting_names
from tests.webhooks.servers import Installation, free_port, served

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "deployment.md"
KNOWN = setting_names([("salesforce", "salesforce"), ("hubspot", "hubspot")])
#: One paid call at its longest and the writing of what it brought (design/reliability.md M13).
LEAST_GRACE_S = 75
USER = 10001

COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
MANIFESTS = sorted(DEPLOY.glob("kubernetes/**/*.yaml"))
UNITS = sorted(DEPLOY.glob("systemd/*.service"))


def loaded(path: Path) -> list[Any]:
    return [each for each in YAML(typ="safe").load_all(path.read_text()) if each is not None]


def check_command(words: list[str]) -> None:
    """`crm-sync …` or gunicorn with what is behind it, as far as it can be told without running it."""
    program, rest = Path(words[0]).name, list(words[1:])
    if program == "gunicorn":
        assert "wsgi:app" in rest
        assert Path(rest[rest.index("-c") + 1]).name == "gunicorn.conf.py"
        assert "preload" not in " ".join(rest)
        return
    if program == "backup.sh":
        assert (DEPLOY / program).stat().st_mode & 0o111
        return
    assert program == "crm-sync", words
    command: click.Command = cli
    context = click.Context(cli)
    while rest and isinstance(command, click.Group):
        if rest[0] in ("--config", "--env-file"):
            del rest[:2]
            continue
        if rest[0].startswith("-"):
            break
        name = rest.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{' '.join(words)}: there is no {name}"
        command = found
    options = {name for each in command.params for name in each.opts} | {"--help"}
    assert {each.partition("=")[0] for each in rest if each.startswith("--")} <= options, words


# --- settings and commands everywhere ------------------------------------------------------------------------------


def written() -> list[Path]:
    """Not what Python keeps of gunicorn's configuration beside it, once another test has loaded that."""
    found = (*DEPLOY.rglob("*"), GUIDE, ROOT / ".dockerignore")
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def test_only_settings_are_named_that_there_are() -> None:
    named = {(path.name, name) for path in written() for name in re.findall(r"CRM_SYNC_[A-Z_]+[A-Z]", path.read_text())}

    assert {each for each in named if each[1] not in KNOWN} == set()


def test_every_command_of_the_guide_is_there() -> None:
    text = GUIDE.read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`(crm-sync [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    begins = r"(?:^|&& |-- |bin/|= )(crm-sync [a-z-][^&;|<>]*)"
    commands = [found for line in (*lines, *spans) for found in re.findall(begins, line)]
    in_compose = r"run --rm(?: -T)?(?: -v \S+)? command ([a-z][^&;|<>`#\n]*)"
    commands += [f"crm-sync {found}" for found in re.findall(in_compose, text)]

    assert len(commands) > 30
    for command in commands:
        check_command([word for word in shlex.split(command) if word != "…"])


def test_every_file_that_the_guide_names_is_there() -> None:
    text = GUIDE.read_text()

    named = {each.rstrip(".") for each in re.findall(r"\bdeploy/[\w./*-]+", text)}
    # What the reader makes.
    named = {each for each in named if not each.startswith(("deploy/etc", "deploy/.env", "deploy/database-password"))}
    missing = [each for each in named if not list(ROOT.glob(each))]
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not (GUIDE.parent / link).exists()]
    anchors = {
        re.sub(r"[^\w -]", "", line).strip().replace(" ", "-").lower()
        for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)
    }

    assert missing == []
    assert links == []
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


# --- the image ---------------------------------------------------------------------------------------------------


def instructions(name: str) -> list[str]:
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    return [line.partition(" ")[2].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def is_in_context(path: str) -> bool:
    """Docker's rule: the last line that matches the path, or a folder above it, decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        above = [path, *map(str, Path(path).parents)][:-1]
        names = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        if any(
            fnmatch(each, name) or (fnmatch(Path(each).name, name) and "**" in pattern)
            for each in above
            for name in names
        ):
            kept = line.startswith("!")
    return kept


def test_all_that_the_image_copies_is_there_and_let_through() -> None:
    sources = [word for copy in instructions("COPY") if not copy.startswith("--from") for word in copy.split()[:-1]]

    assert {"crm_sync", "adapters", "webhooks", "wsgi.py", "requirements.lock"} <= set(sources)
    assert [each for each in sources if not (ROOT / each).exists()] == []
    assert [each for each in sources if not is_in_context(each)] == []


@pytest.mark.parametrize(
    "path", [".env", "crm_sync.db", ".git/config", "deploy/etc/.env", "crm_sync/.env", "tests/conftest.py"]
)
def test_nothing_else_gets_into_a_layer(path: str) -> None:
    assert not is_in_context(path)


def test_the_image_takes_locked_wheels_and_runs_as_nobody_in_particular() -> None:
    installs = [each for each in instructions("RUN") if "pip install" in each]

    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
    assert "--no-index" in installs[1]
    assert instructions("USER") == [f"{USER}:{USER}"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    check_command(json.loads(instructions("CMD")[0]))  # not through a shell, which would not pass SIGTERM on


def test_the_web_servers_lock_is_the_one_that_is_tested() -> None:
    def version(name: str) -> str:
        found = re.search(r"^gunicorn==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
        assert found is not None
        return found[1]

    assert version("requirements-web.lock") == version("requirements-dev.lock")


def test_the_health_check_tells_a_server_that_answers(tmp_path: Path) -> None:
    check = instructions("HEALTHCHECK")[0]
    command = json.loads(check[check.index("[") :])

    def healthy(port: int) -> bool:
        words = [sys.executable, *(word.replace(":8080/", f":{port}/") for word in command[1:])]
        return subprocess.run(words, capture_output=True, check=False, timeout=20).returncode == 0

    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db"), served("gunicorn", tmp_path) as server:
        assert healthy(server.port)
    assert not healthy(server.port)


def test_gunicorn_takes_its_configuration(tmp_path: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", str(DEPLOY / "gunicorn.conf.py"), "--check-config", "--pythonpath", str(ROOT), "wsgi:app"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("verb", ["serve", "worker"])
def test_as_process_number_one_it_hears_sigterm(tmp_path: Path, verb: str) -> None:
    """The kernel keeps from process 1, as in a container, every signal for which it has no handler."""
    first = ["unshare", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*first, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NO PROCESS NAMESPACE MAY BE MADE HERE: stopping process number 1 was not tried")
    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db"):
        pass
    more = ["--port", str(free_port())] if verb == "serve" else []
    with (tmp_path / "out").open("wb") as out:
        child = subprocess.Popen(
            [*first, sys.executable, "-m", "crm_sync", verb, *more],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while "Ctrl-C ends it" not in (tmp_path / "out").read_text():
            assert time.monotonic() < until, (tmp_path / "out").read_text()
            time.sleep(0.05)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        # It says that it runs a moment before it has the handler.
        while child.poll() is None and time.monotonic() < until:
            with suppress(ProcessLookupError):
                os.kill(int(children[0]), signal.SIGTERM)
            time.sleep(0.5)

        assert child.wait(1) == 0
    finally:
        child.kill()


# --- compose -------------------------------------------------------------------------------------------------------


def services() -> Iterator[tuple[str, str, Any]]:
    for path in COMPOSE:
        for name, service in loaded(path)[0]["services"].items():
            yield path.name, name, service


SERVICES = [pytest.param(service, id=f"{file}-{name}") for file, name, service in services()]


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_time_to_stop_and_volumes_that_are_declared(service: Any) -> None:
    assert seconds(service["stop_grace_period"]) >= LEAST_GRACE_S
    declared = {name for path in COMPOSE for name in loaded(path)[0]["volumes"]}
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        assert source.startswith("./") or source in declared


OURS = [each for each in SERVICES if each.values[0].get("image") == "crm-sync"]


@pytest.mark.parametrize("service", OURS)
def test_our_own_services_are_locked_up(service: Any) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "/tmp" in service["tmpfs"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "./etc:/etc/crm-sync:ro" in service["volumes"]
    check_command([*service.get("entrypoint", []), *service["command"]])


@pytest.mark.parametrize("service", OURS)
def test_no_secret_is_in_the_environment(service: Any) -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}

    names = {name.removeprefix("CRM_SYNC_").lower() for name in service.get("environment", {})}

    assert names & secret == set()


def test_the_workers_of_compose_share_their_state_file() -> None:
    compose = loaded(DEPLOY / "compose.yaml")[0]
    state = instructions("ENV")[0].partition("CRM_SYNC_STATE_FILE=")[2]

    for name in ("worker", "command", "migrate"):
        mounts = [volume.split(":")[1] for volume in compose["services"][name]["volumes"]]
        assert str(Path(state).parent) in mounts


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def pods() -> Iterator[tuple[str, Any, Any]]:
    for path in MANIFESTS:
        for manifest in loaded(path):
            spec = manifest.get("spec", {})
            template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
            if template is not None:
                yield f"{manifest['kind']}-{manifest['metadata']['name']}", manifest, template["spec"]


PODS = [pytest.param(manifest, pod, id=name) for name, manifest, pod in pods()]


@pytest.mark.parametrize(("manifest", "pod"), PODS)
def test_each_pod_is_locked_up_and_has_time_to_stop(manifest: Any, pod: Any) -> None:
    assert pod["terminationGracePeriodSeconds"] >= LEAST_GRACE_S
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == USER
    assert pod["securityContext"]["fsGroup"] == USER
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {each["name"] for each in container.get("env", [])} <= KNOWN
        assert container["resources"]["limits"]["memory"]
        check_command(container["command"])


@pytest.mark.parametrize(("manifest", "pod"), PODS)
def test_each_mount_has_its_volume(manifest: Any, pod: Any) -> None:
    volumes = {each["name"] for each in pod["volumes"]}
    volumes |= {each["metadata"]["name"] for each in manifest["spec"].get("volumeClaimTemplates", [])}

    mounts = {mount["name"]: mount["mountPath"] for each in pod["containers"] for mount in each["volumeMounts"]}

    assert set(mounts) == volumes
    assert mounts["settings"] == "/etc/crm-sync"
    assert mounts["tmp"] == "/tmp"
    if manifest["metadata"]["name"] in ("worker", "serve"):
        assert mounts["state"] == "/var/lib/crm-sync-state"


@pytest.mark.parametrize(("manifest", "pod"), [each for each in PODS if each.values[1]["containers"][0].get("ports")])
def test_whoever_listens_is_asked_how_it_is(manifest: Any, pod: Any) -> None:
    container = pod["containers"][0]

    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_kustomizations_name_files_that_are_there() -> None:
    for path in DEPLOY.glob("kubernetes/**/kustomization.yaml"):
        for name in loaded(path)[0]["resources"]:
            assert (path.parent / name).exists()


@pytest.mark.parametrize("folder", [".", "migrate", "single"])
def test_kubectl_puts_the_manifests_together(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("KUBECTL IS NOT INSTALLED: the manifests were read, not put together")
    made = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes" / folder)], capture_output=True, text=True, check=False
    )

    assert made.returncode == 0, made.stderr
    images = {
        container["image"]
        for manifest in YAML(typ="safe").load_all(made.stdout)
        for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    }
    assert images == {"registry.example.com/crm-sync:0.1.0"}


# --- systemd -------------------------------------------------------------------------------------------------------


def unit(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_each_unit_has_time_to_stop_and_a_command_that_is_there(path: Path) -> None:
    settings = unit(path)
    words = shlex.split(settings["ExecStart"][0])

    assert int(settings["TimeoutStopSec"][0]) >= LEAST_GRACE_S
    assert settings["User"] == ["crm-sync"]
    assert settings["ProtectSystem"] == ["strict"]
    check_command(words)
    for word in words:
        if word.startswith("/opt/crm-sync/src/"):
            assert (ROOT / word.removeprefix("/opt/crm-sync/src/")).exists()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_each_unit(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("SYSTEMD IS NOT INSTALLED: the units were read, not verified")
    # The programs are not installed on this machine.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(), flags=re.MULTILINE)
    (tmp_path / path.name).write_text(text)
    for timer in path.parent.glob("*.timer"):
        shutil.copy(timer, tmp_path)

    def analyzed(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)

    verified = analyzed("verify", "--man=no", str(tmp_path / path.name))
    rated = analyzed("security", "--offline=true", "--threshold=20", str(tmp_path / path.name))

    assert (verified.returncode, verified.stderr) == (0, "")
    if "unrecognized option" not in rated.stderr:  # before systemd 250
        assert rated.returncode == 0, rated.stdout[-300:]


# --- backup.sh -----------------------------------------------------------------------------------------------------


@pytest.fixture
def path_with_crm_sync(tmp_path: Path) -> dict[str, str]:
    """crm-sync as a program, of this tree."""
    program = tmp_path / "bin" / "crm-sync"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m crm_sync "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_the_nightly_backup_removes_old_ones_only_when_there_is_a_new_one(
    tmp_path: Path, path_with_crm_sync: dict[str, str]
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old, other = folder / "crm_sync-20261101T023000Z.backup", folder / "something.else"
    for each in (old, other, folder / f"{old.name}.erasures"):
        each.write_text("x")
        os.utime(each, (time.time() - 20 * 86400,) * 2)

    def back_up() -> int:
        return subprocess.run(
            [str(DEPLOY / "backup.sh"), str(folder), "14"],
            cwd=tmp_path, env=path_with_crm_sync, capture_output=True, check=False, timeout=60,
        ).returncode  # fmt: skip

    failed = back_up()  # an empty database
    kept = {each.name for each in folder.iterdir()}
    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db"):
        made = back_up()

    names = {each.name for each in folder.iterdir()}
    assert (failed, made) == (1, 0)
    assert kept == {old.name, f"{old.name}.erasures", other.name}
    assert len(names) == 2
    assert other.name in names
    new = next(each for each in folder.iterdir() if each != other)
    assert re.fullmatch(r"crm_sync-\d{8}T\d{6}Z\.backup", new.name)
    assert new.stat().st_mode & 0o077 == 0
