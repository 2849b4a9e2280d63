"""A secret reads *** wherever it goes, and what libraries say is told without it."""

import copy
import dataclasses
import json
import logging
import pickle
import subprocess
import sys

import pytest

from infra.errors import SlipwayError, WrongInput
from infra.secret import Secret, redact, remember_environment
from infra.settings import Settings, child_environment, load_settings

PASSWORD = "correct/horse@battery"
ADDRESS = f"postgresql://bob:{PASSWORD}@db.example.org:5432/mlflow"


@pytest.fixture
def settings(tmp_path):
    return Settings(
        workspace=str(tmp_path),
        tracking_uri=ADDRESS,
        prefect_database=ADDRESS,
        prefect_auth=Secret("admin:swordfish-one"),
        mlflow_password=Secret("swordfish-two"),
        ray_token=Secret("swordfish-three"),
    )


def test_settings_hold_secrets_that_no_way_of_writing_them_down_tells(settings, caplog):
    logging.getLogger("a library").warning("%s %r", settings, settings)
    written = [
        repr(settings),
        str(settings),
        f"{settings.tracking_uri} {settings.prefect_auth} {settings.ray_token!r}",
        json.dumps(dataclasses.asdict(settings)),
        json.dumps(vars(settings), default=str),
        repr(copy.deepcopy(settings)),
        pickle.dumps(settings).decode("latin-1"),
        settings.mlflow_shown,
        caplog.text,
    ]
    for text in written:
        assert "swordfish" not in text and "battery" not in text and "horse" not in text
        assert text == settings.mlflow_shown or "***" in text
    assert settings.mlflow_shown == "postgresql://bob:***@db.example.org:5432/mlflow"


def test_what_needs_the_secret_is_given_it(settings):
    assert settings.mlflow_uri == ADDRESS
    assert settings.prefect_database_uri == ADDRESS.replace("postgresql://", "postgresql+asyncpg://")
    assert settings.ray_token.reveal() == "swordfish-three"
    assert dataclasses.replace(settings, author="eve").mlflow_uri == ADDRESS


def test_a_server_is_sent_the_password_beside_its_address(monkeypatch, tmp_path):
    from infra.settings import quiet_environment

    taken: dict[str, str] = {}
    monkeypatch.setattr("os.environ", taken)
    settings = Settings(workspace=str(tmp_path), tracking_uri="https://eve:swordfish%2Ffour@mlflow.example.org/x")
    quiet_environment(settings)
    assert settings.mlflow_uri == "https://mlflow.example.org/x"
    assert (taken["MLFLOW_TRACKING_USERNAME"], taken["MLFLOW_TRACKING_PASSWORD"]) == ("eve", "swordfish/four")


def test_prefect_is_not_told_a_secret_as_a_flows_parameter(settings):
    """Settings are a parameter of flows, and Prefect keeps parameters in its database."""
    encoders = pytest.importorskip("fastapi.encoders")
    text = json.dumps(encoders.jsonable_encoder(settings))
    assert "***" in text and "swordfish" not in text and "battery" not in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cannot reach postgresql+psycopg2://u:pa/ss@h:5432/d", "cannot reach postgresql+psycopg2://u:***@h:5432/d"),
        ("https://ghp_0123456789@github.com/x.git", "https://***@github.com/x.git"),
        ("GET https://s3/k?X-Amz-Signature=abc123&x=1", "GET https://s3/k?X-Amz-Signature=***&x=1"),
        ("postgresql://h/d?user=u&password=pw1", "postgresql://h/d?user=u&password=***"),
        ("redis://:pw@h:1", "redis://:***@h:1"),
        # What only looks like one stays readable.
        ("http://127.0.0.1:5000/models:/reviews@champion", "http://127.0.0.1:5000/models:/reviews@champion"),
        ("postgresql://bob@h/d", "postgresql://bob@h/d"),
        ("s3://bucket/prefix, reviews@1f2e3d and a@b.org", "s3://bucket/prefix, reviews@1f2e3d and a@b.org"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_addresses_are_told_without_what_is_secret_in_them(text, told):
    assert redact(text) == told


def test_every_error_is_told_without_secrets():
    Secret.alone("sesame-open-1")
    Secret.inside(ADDRESS)
    for kind in (SlipwayError, WrongInput):
        error = kind(f"refused: sesame-open-1 at {ADDRESS}: password '{PASSWORD}' is wrong")
        assert str(error) == "refused: *** at postgresql://bob:***@db.example.org:5432/mlflow: password '***' is wrong"


def test_a_secret_is_not_found_inside_other_words():
    Secret.alone("postgres")
    assert redact("postgresql://db:5432 says postgres is no password") == (
        "postgresql://db:5432 says *** is no password"
    )


def test_variables_that_are_named_like_secrets_are_known(monkeypatch, tmp_path):
    remember_environment({"AWS_SECRET_ACCESS_KEY": "aws-secret-for-tests", "PATH": "/usr/bin", "N_KEY": "short"})
    assert redact("aws-secret-for-tests /usr/bin short") == "*** /usr/bin short"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_for_tests_only")
    load_settings()
    assert redact("hf_for_tests_only") == "***"


def test_the_traceback_of_a_bug_is_told_without_secrets(tmp_path):
    code = """
from flows import cli
from infra.settings import load_settings

@cli.cli.command()
def broken():
    settings = load_settings()
    raise RuntimeError(f"{settings.ray_token.reveal()} at {settings.mlflow_uri}")

cli.main(["broken"])
"""
    environment = child_environment(SLIPWAY_RAY_TOKEN="sesame-open-3", SLIPWAY_TRACKING_URI=ADDRESS)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: *** at postgresql://bob:***@db.example.org:5432/mlflow")
    assert "sesame" not in done.stderr and "battery" not in done.stderr
