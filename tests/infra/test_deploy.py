"""What stands in infra/deploy is what the schemas, the settings, the commands and the pins say; no secret is in it."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from infra.errors import WrongInput
from infra.settings import Settings
from infra.store import NotFound, S3Store

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra" / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
TEXTS = {
    path.relative_to(DEPLOY).as_posix(): path.read_text("utf-8")
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and path.suffix != ".pyc"
}
COMPOSE = yaml.safe_load(TEXTS["compose.yaml"])
OBJECTS = [body for path in MANIFESTS for body in yaml.safe_load_all(path.read_text("utf-8"))]
SECRET = re.compile(r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|AUTH|AUTH_STRING)$")
"""How variables with a secret are named."""


def pod_templates(node: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in an object, wherever it stands."""
    if isinstance(node, dict):
        if "containers" in node.get("spec", {}):
            yield node
        for value in node.values():
            yield from pod_templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_templates(value)


PODS = [template["spec"] for body in OBJECTS for template in pod_templates(body)]
CONTAINERS = [container for pod in PODS for container in pod["containers"]]


def pinned(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert found, f"{name} is not pinned"
    return found[1]


# Schemas --------------------------------------------------------------------------------------------------------------


def test_compose_file_keeps_the_published_schema():
    from check_jsonschema.builtin_schemas import get_builtin_schema

    jsonschema.validate(COMPOSE, get_builtin_schema("vendor.compose-spec"))


def test_kubernetes_objects_keep_the_published_schemas():
    import kubernetes_validate

    newest = kubernetes_validate.latest_version()
    rayjob = yaml.safe_load((Path(__file__).parent / "rayjob.schema.yaml").read_text("utf-8"))
    for body in OBJECTS:
        if body["kind"] == "RayJob":
            jsonschema.validate(body, rayjob)
            for template in pod_templates(body):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
                kubernetes_validate.validate(pod, newest, strict=True)
        else:
            kubernetes_validate.validate(body, newest, strict=True)
    assert {body["kind"] for body in OBJECTS} >= {"Deployment", "RayJob", "Service", "NetworkPolicy"}
    assert len(PODS) == 6


def test_prefect_takes_the_file_whole_and_finds_its_flow():
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.events import DeploymentTriggerTypes
    from prefect.flows import load_flow_from_entrypoint
    from pydantic import TypeAdapter

    body = yaml.safe_load(TEXTS["prefect.yaml"])
    taken = PrefectYamlModel.model_validate(body).model_dump(exclude_unset=True)
    assert taken["deployments"], "Prefect leaves out what it does not know"
    for given, deployment in zip(body["deployments"], taken["deployments"], strict=True):
        assert given.keys() == deployment.keys()
        for trigger in given["triggers"]:
            TypeAdapter(DeploymentTriggerTypes).validate_python(trigger)
        flow: Any = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        flow.validate_parameters(deployment["parameters"])


def test_dockerfile_has_no_finding_of_hadolint():
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed: its wheels are for Linux on x86-64")
    found = subprocess.run([hadolint, "--no-color", str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_what_the_dockerfile_copies_is_there_and_let_in():
    let_in = {line[1:] for line in TEXTS["Dockerfile.dockerignore"].splitlines() if line.startswith("!")}
    copied = [
        name
        for line in TEXTS["Dockerfile"].splitlines()
        if line.startswith("COPY") and "--from" not in line
        for name in line.split()[1:-1]
        if not name.startswith("--")
    ]
    assert let_in == {name.split("/")[0] for name in copied}
    assert [name for name in copied if not (ROOT / name).exists()] == []


# Settings, commands, pins ---------------------------------------------------------------------------------------------


def test_every_setting_that_is_named_exists():
    known = {f"SLIPWAY_{field.name.upper()}" for field in fields(Settings)}
    named = {(file, name) for file, text in TEXTS.items() for name in re.findall(r"SLIPWAY_[A-Z_]*[A-Z]", text)}
    assert len(named) > 15
    assert {(file, name) for file, name in named if name not in known} == set()


def test_every_command_that_is_named_exists():
    from flows.cli import cli

    named = 0
    for file, text in TEXTS.items():
        for first, second in re.findall(r"(?:`|with-secrets |&& )slipway ([a-z-]+)(?: ([a-z-]+))?", text):
            command = cli.commands.get(first)
            assert command, f"{file}: slipway {first}"
            if isinstance(command, click.Group) and second:
                assert second in command.commands, f"{file}: slipway {first} {second}"
            named += 1
    assert named > 4


def command_lines() -> Iterator[list[str]]:
    """Of services, of their health checks and of containers; a shell's script gives its lines."""
    for service in COMPOSE["services"].values():
        for line in (service.get("command", []), service.get("healthcheck", {}).get("test", [""])[1:]):
            if line[:1] in (["sh"], []):
                yield from (words.removeprefix("exec ").split() for words in "".join(line[2:]).splitlines())
            else:
                yield [word for word in line if word != "with-secrets"]
    yield from (container["args"] for container in CONTAINERS if "args" in container)


def test_other_programs_know_every_option_they_are_given():
    import mlflow.cli
    import ray.scripts.scripts
    from prefect.cli._app import _app as prefect

    seen = []
    for line in command_lines():
        match line:
            case ["mlflow", "server", *options]:
                click_takes(mlflow.cli.cli.commands["server"], options)
            case ["ray", name, *options]:
                click_takes(ray.scripts.scripts.cli.commands[name], options)
            case ["prefect", *options]:
                prefect.parse_args(options, exit_on_error=False, print_error=False)
            case ["python", "-P", "-m", module]:
                assert importlib.util.find_spec(module), module
            case ["python", "-c", code]:
                compile(code, "command", "exec")
            case _:
                continue
        seen.append(line[0])
    assert {program: seen.count(program) for program in ("mlflow", "prefect", "ray")} == {
        "mlflow": 2,
        "prefect": 2,
        "ray": 6,
    }


def click_takes(command: click.Command, options: list[str]) -> None:
    command.make_parser(click.Context(command)).parse_args(list(options))


def test_versions_are_the_pinned_ones():
    (job,) = [body for body in OBJECTS if body["kind"] == "RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    first = (ROOT / "constraints.txt").read_text("utf-8").splitlines()[0]
    python = set(re.findall(r"^FROM python:(\d+\.\d+)-slim", TEXTS["Dockerfile"], re.MULTILINE))
    assert python == set(re.findall(r"Python (\d+\.\d+)", first))
    assert TEXTS["Dockerfile"].count("-c constraints.txt") == TEXTS["Dockerfile"].count("pip install")
    for name in ("psycopg2-binary", "Flask-WTF", "aiohttp-cors", "torch"):
        assert pinned(name)


# Secrets and rights ---------------------------------------------------------------------------------------------------


def test_no_secret_is_written_down():
    for file, text in TEXTS.items():
        assert re.findall(r"://[^/\s:@]*:[^/\s@]+@", text) == [], f"{file}: a password in an address"
    for name, service in COMPOSE["services"].items():
        shown = {key: str(value) for key, value in service.get("environment", {}).items() if SECRET.search(key)}
        assert shown == {}, f"{name}: give it under secrets:"
    assert [body for body in OBJECTS if body["kind"] == "Secret"] == []
    for container in CONTAINERS:
        for variable in container.get("env", []):
            assert not SECRET.search(variable["name"]) or "secretKeyRef" in variable["valueFrom"]
    for body in OBJECTS:
        if body["kind"] == "ConfigMap":
            assert [key for key in body["data"] if SECRET.search(key)] == []


def test_compose_has_no_default_for_a_secret_and_starts_nothing_without():
    assert COMPOSE["secrets"] == {name: {"environment": name} for name in COMPOSE["secrets"]}
    used = set()
    for service in COMPOSE["services"].values():
        used |= {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    assert re.findall(r"(?<!\$)\$\{[^}]*\}", TEXTS["compose.yaml"]) == re.findall(
        r"(?<!\$)\$\{[A-Z_]+:\?[^}]+\}", TEXTS["compose.yaml"]
    )


def test_readme_tells_how_each_secret_is_made():
    wanted = set(COMPOSE["secrets"])
    for container in CONTAINERS:
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                wanted |= {reference["name"], reference["key"]}
        wanted |= {one["secretRef"]["name"] for one in container.get("envFrom", []) if "secretRef" in one}
    assert {name for name in wanted if name not in TEXTS["README.md"]} == set()


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"A_TOKEN": "x y\n", "B_KEY": "$(echo z)"}, 0, "x y|$(echo z)\n"),
        ({"A_TOKEN": ""}, 2, "with-secrets: the secret A_TOKEN is empty; set it\n"),
        ({}, 0, "|\n"),
    ],
)
def test_with_secrets_gives_files_as_variables_and_refuses_an_empty_one(tmp_path, files, code, said):
    for name, value in files.items():
        (tmp_path / name).write_text(value, encoding="utf-8")
    (tmp_path / "kubernetes.io").mkdir()
    command = [str(DEPLOY / "with-secrets"), "sh", "-c", 'echo "${A_TOKEN:-}|${B_KEY:-}"']
    environment = {"SECRETS": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout + ran.stderr) == (code, said)


def test_nothing_is_published_beyond_loopback():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports and [port for port in ports if not str(port).startswith("127.0.0.1:")] == []
    assert [service for service in COMPOSE["services"].values() if service.get("network_mode")] == []
    assert COMPOSE["networks"]["stores"]["internal"] is True
    for body in OBJECTS:
        if body["kind"] == "Service":
            assert body["spec"].get("type", "ClusterIP") in ("ClusterIP", "ExternalName")


def test_what_listens_asks_who_is_there():
    services = COMPOSE["services"]
    assert "--app-name=basic-auth" in services["mlflow"]["command"]
    given = {one["target"] for one in services["prefect"]["secrets"] if isinstance(one, dict)}
    assert "PREFECT_SERVER_API_AUTH_STRING" in given
    for name in ("ray-head", "ray-worker", "driver"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token", name
    for container in CONTAINERS:
        if "mlflow" in container.get("args", []):
            assert "--app-name=basic-auth" in container["args"]
        if "prefect" in container.get("args", []):
            assert "PREFECT_SERVER_API_AUTH_STRING" in {variable["name"] for variable in container["env"]}
    (job,) = [body for body in OBJECTS if body["kind"] == "RayJob"]
    assert job["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"


def test_nothing_runs_as_root_or_may_become_it():
    assert re.findall(r"^USER (\d+)$", TEXTS["Dockerfile"], re.MULTILINE) == ["10001"]
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"], name
        assert service["image"] == "slipway" or service["user"] not in ("root", "0"), name
        assert not service.get("privileged") and "/var/run/docker.sock" not in str(service.get("volumes")), name
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
        assert pod["automountServiceAccountToken"] is False
    for container in CONTAINERS:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_every_service_that_stays_is_watched():
    stays = {name for name, one in COMPOSE["services"].items() if one["restart"] == "unless-stopped"}
    assert {name for name in stays if "healthcheck" not in COMPOSE["services"][name]} == set()
    for name, service in COMPOSE["services"].items():
        for other, wanted in service.get("depends_on", {}).items():
            condition = "service_healthy" if other in stays else "service_completed_successfully"
            assert wanted == {"condition": condition}, f"{name} on {other}"


# Least privilege, tried on a server that keeps the policy ------------------------------------------------------------

POLICY = json.loads(TEXTS["s3-policy.json"])
ACTIONS = sorted(action for statement in POLICY["Statement"] for action in statement["Action"])


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def use_every_way(store: S3Store, large: Path) -> None:
    """Each operation of the store, what `check` asks (it goes on where that is refused, and then cannot see a versioned
    bucket), and what boto3 does when a large upload breaks off."""
    assert "Status" not in store.client.get_bucket_versioning(Bucket=store.bucket)
    store.put("a", b"1")
    assert store.create("b", b"1") and not store.create("b", b"2")
    assert store.get("a") == b"1" and store.modified("a")
    assert store.exists("b") and not store.exists("c")
    with pytest.raises(NotFound):
        store.get("c")
    assert list(store.list("")) == ["a", "b"]
    store.upload(large, "d")
    assert store.local_path("d").stat().st_size == large.stat().st_size
    where = {"Bucket": store.bucket, "Key": store._key("e")}
    upload = store.client.create_multipart_upload(**where)["UploadId"]
    store.client.abort_multipart_upload(**where, UploadId=upload)
    for key in ("a", "b", "d"):
        store.delete(key)


@pytest.mark.parametrize("without", [None, *ACTIONS])
def test_store_needs_each_action_of_the_policy_and_no_other(aws, without, tmp_path, monkeypatch):
    import boto3
    from botocore.exceptions import ClientError
    from moto.core.authorization import enable_iam_authentication

    bucket = f"bucket-{ACTIONS.index(without) if without else 'whole'}"
    policy = json.loads(TEXTS["s3-policy.json"].replace("BUCKET", bucket))
    for statement in policy["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action != without]
    policy["Statement"] = [statement for statement in policy["Statement"] if statement["Action"]]

    def key(identity: str, secret: str) -> None:
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # boto3 keeps the credentials it found first
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    key("root", "root")
    boto3.client("s3").create_bucket(Bucket=bucket)
    accounts = boto3.client("iam")
    accounts.create_user(UserName=bucket)
    accounts.put_user_policy(UserName=bucket, PolicyName="slipway", PolicyDocument=json.dumps(policy))
    made = accounts.create_access_key(UserName=bucket)["AccessKey"]
    key(made["AccessKeyId"], made["SecretAccessKey"])
    store = S3Store(bucket, "slipway", tmp_path / "cache")
    large = tmp_path / "large"
    large.write_bytes(bytes(9 << 20))  # above 8 MiB boto3 uploads in parts
    with enable_iam_authentication():
        if without is None:
            use_every_way(store, large)
            return
        with pytest.raises((WrongInput, ClientError), match="AccessDenied"):
            use_every_way(store, large)
