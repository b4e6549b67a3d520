"""Every way in, and nothing of kfp.Client's memory."""

import base64
import datetime
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.errors import PipelineStop
from pipeline.kubeflow.submit import connection
from pipeline.loading import PROJECT
from tests.pipeline.kubeflow.submit.argo_rows import rows
from tests.pipeline.kubeflow.submit.conftest import COOKIE, TOKEN, Run
from tests.pipeline.kubeflow.submit.fake_api import FakeApi, served


class Certificate(NamedTuple):
    chain: Path
    key: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Signed by itself, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificate")
    return _certificate(folder, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def _certificate(folder: Path, name: x509.GeneralName) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(folder / "chain.pem", folder / "key.pem")
    found.chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found


def test_a_token(run: Run, api: FakeApi) -> None:
    api.token = TOKEN
    assert run({"KFP_TOKEN": f"{TOKEN}\n"}) == 0
    with pytest.raises(PipelineStop, match=r"wants to know who asks.*credentials given: none"):
        run()
    with pytest.raises(PipelineStop, match="credentials given: a token"):
        run({"KFP_TOKEN": "another"})


def test_a_token_from_a_file_that_changes(run: Run, api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old-one\n")
    api.token = "old-one"
    assert run({"KFP_TOKEN_FILE": str(file)}, follow=False) == 0
    file.write_text(f"{TOKEN}\n")
    api.token = TOKEN
    assert run({"KFP_TOKEN_FILE": str(file)}) == 0


def test_a_token_file_is_read_for_each_request(package: Path, api: FakeApi, tmp_path: Path) -> None:
    from pipeline.kubeflow.submit.client import Client

    file = tmp_path / "token"
    file.write_text("old-one\n")
    api.token = "old-one"
    place = connection.read({"KFP_HOST": api.host, "KFP_TOKEN_FILE": str(file)})
    client = Client(place)
    ask = client.pipelines.pipeline_service_list_pipelines
    client.call("ask", ask)
    file.write_text(TOKEN)
    api.token = TOKEN
    client.call("ask", ask)
    file.unlink()
    with pytest.raises(PipelineStop, match=r"token can't be read.*Check KFP_TOKEN_FILE"):
        client.call("ask", ask)


def test_the_credentials_of_gcloud_are_not_taken(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a host with this ending kfp.Client itself asks Google for a token."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    api.prefix = "/a.pipelines.googleusercontent.com"
    assert run({"KFP_HOST": f"{api.host}{api.prefix}"}) == 0
    assert "GCP" not in caplog.text


def test_cookies(run: Run, api: FakeApi) -> None:
    api.cookie = f"authservice_session={COOKIE}"
    assert run({"KFP_COOKIES": api.cookie}) == 0
    assert all("authorization" not in one.headers for one in api.asked)
    with pytest.raises(PipelineStop, match="credentials given: cookies"):
        run({"KFP_COOKIES": f"authservice_session={COOKIE}-expired"})


def test_an_unknown_certificate_and_its_authority(
    run: Run, certificate: Certificate, lines: list[str]
) -> None:
    with served(FakeApi(), certificate) as api:
        with pytest.raises(PipelineStop, match=r"can't be verified.*set KFP_CA_CERT"):
            run({"KFP_HOST": api.host})
        assert not api.asked
        assert run({"KFP_HOST": api.host, "KFP_CA_CERT": str(certificate.chain)}) == 0
        assert run({"KFP_HOST": api.host, "KFP_VERIFY_SSL": "false"}) == 0
    assert lines.count("KFP_VERIFY_SSL=false: the server's certificate is not checked.") == 1


def test_a_certificate_for_another_name(run: Run, tmp_path: Path) -> None:
    other = _certificate(tmp_path, x509.DNSName("kubeflow.example.com"))
    with (
        served(FakeApi(), other) as api,
        pytest.raises(PipelineStop, match=r"is for another name.*set KFP_HOST"),
    ):
        run({"KFP_HOST": api.host, "KFP_CA_CERT": str(other.chain)})


def test_a_server_without_tls(run: Run, api: FakeApi) -> None:
    with pytest.raises(PipelineStop, match=r"No TLS connection .* http:// rather than https://"):
        run({"KFP_HOST": api.host.replace("http:", "https:")})


def test_an_authority_that_is_no_certificate(
    run: Run, certificate: Certificate, tmp_path: Path
) -> None:
    file = tmp_path / "authority.pem"
    file.write_text("nothing")
    with (
        served(FakeApi(), certificate) as api,
        pytest.raises(PipelineStop, match="check KFP_CA_CERT"),
    ):
        run({"KFP_HOST": api.host, "KFP_CA_CERT": str(file)})


def test_the_address_of_a_page_is_taken(run: Run, api: FakeApi) -> None:
    api.prefix = "/pipeline"
    assert run({"KFP_HOST": f"{api.host}/pipeline/#/experiments"}) == 0


def test_through_kube_config(
    run: Run, certificate: Certificate, tmp_path: Path, lines: list[str]
) -> None:
    with served(FakeApi(), certificate) as api:
        api.token = TOKEN
        api.prefix = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
        file = tmp_path / "config"
        file.write_text(yaml.safe_dump(_kube_config(api.host, certificate)))
        inside = {"KFP_HOST": "", "KUBECONFIG": str(file), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        assert run({**inside, "KFP_KUBE_CONTEXT": "ours"}) == 0
        (run_id,) = api.runs
        assert f"Run taxi now: /#/runs/details/{run_id}" in lines
        with pytest.raises(PipelineStop, match=r"wants to know who asks.*those of kube-config"):
            run(inside)
        with pytest.raises(PipelineStop, match=r"kube-config .* can't be used.*KFP_KUBE_CONTEXT"):
            run({**inside, "KFP_KUBE_CONTEXT": "theirs"})
        with pytest.raises(PipelineStop, match="KFP_TOKEN, KFP_VERIFY_SSL can't be used"):
            run({**inside, "KFP_TOKEN": TOKEN, "KFP_VERIFY_SSL": "false"})


def _kube_config(host: str, certificate: Certificate) -> dict[str, object]:
    authority = base64.b64encode(certificate.chain.read_bytes()).decode()
    cluster = {"server": host, "certificate-authority-data": authority}
    return {
        "current-context": "stranger",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "ann", "user": {"token": TOKEN}}, {"name": "nobody", "user": {}}],
        "contexts": [
            {"name": "ours", "context": {"cluster": "cluster", "user": "ann"}},
            {"name": "stranger", "context": {"cluster": "cluster", "user": "nobody"}},
        ],
    }


def test_in_a_pod(tmp_path: Path) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert connection.read(pod).host == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    token = tmp_path / "token"
    token.write_text(TOKEN)
    mounted = pod | {"KF_PIPELINES_SA_TOKEN_PATH": str(token)}
    assert connection.read(mounted).token_file == str(token)
    assert connection.read(mounted | {"KFP_TOKEN": "mine"}).token_file is None
    assert connection.read(mounted | {"KFP_HOST": "http://there"}).token_file is None


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "set KFP_HOST to its address.*or KFP_KUBE_CONTEXT"),
        ({"KFP_TOKEN": TOKEN}, "set KFP_HOST"),
        ({"KFP_HOST": f"https://ann:{TOKEN}@there"}, "has a user or password in it"),
        ({"KFP_HOST": "http://"}, "it begins with http:// or https://, and has a host"),
        (
            {"KFP_HOST": "http://there", "KFP_TOKEN": TOKEN, "KFP_TOKEN_FILE": "/dev/null"},
            "both set: keep one.*\n.*no token can be read",
        ),
        ({"KFP_HOST": "http://there", "KFP_TOKEN": f"{TOKEN}\nx"}, "KFP_TOKEN has a line break"),
        ({"KFP_HOST": "http://there", "KFP_COOKIES": f"ä={TOKEN}"}, "KFP_COOKIES has a line"),
        ({"KFP_HOST": "http://there", "KFP_CA_CERT": "/nowhere"}, "KFP_CA_CERT is /nowhere, which"),
    ],
)
def test_mistakes(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(PipelineStop, match=problem) as caught:
        connection.read(environment)
    assert TOKEN not in str(caught.value)


def test_a_connection_shows_no_secret() -> None:
    given = {"KFP_HOST": "http://there", "KFP_TOKEN": TOKEN, "KFP_COOKIES": f"session={COOKIE}"}
    place = connection.read(given)
    assert TOKEN not in repr(place)
    assert COOKIE not in repr(place)
    assert place.hide(f"{TOKEN} {COOKIE}") == "*** ***"


@pytest.mark.parametrize("content", [None, "", "{", "apiVersion: [", "kind: Config"])
def test_a_kube_config_that_is_none(run: Run, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PipelineStop, match=r"kube-config .* can't be used \(.*Check KUBECONFIG"):
        run({"KFP_HOST": "", "KUBECONFIG": str(file)})


_SCRIPT = """
import sys
from pathlib import Path
from pipeline.kubeflow.submit import Submission, submit
host, package = sys.argv[1:]
request = Submission(
    Path(package), "taxi", {"data": "x"}, "nightly", "now", None, None, None, 30.0, False, True
)
sys.exit(submit(request, {"KFP_HOST": host}, print))
"""


@pytest.mark.parametrize("remembered", [True, False])
def test_nothing_is_remembered(
    api: FakeApi, package: Path, tmp_path: Path, remembered: bool
) -> None:
    context = tmp_path / ".config" / "kfp" / "context.json"
    if remembered:
        context.parent.mkdir(parents=True)
        context.write_text(
            json.dumps(
                {
                    "namespace": "remembered",
                    "client_authentication_cookie": "remembered",
                    "client_authentication_header_name": "x-goog-remembered",
                    "client_authentication_header_value": "remembered",
                }
            )
        )
    before = sorted(tmp_path.rglob("*"))
    api.progress = [{"run_details": {"task_details": rows({})}, "state": "SUCCEEDED"}]
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "KF_PIPELINES_ENDPOINT": "http://127.0.0.1:9/elsewhere",
        "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID": "somebody",
        "KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME": "elsewhere",
        "KF_PIPELINES_UI_ENDPOINT": "http://elsewhere",
    }
    command = [sys.executable, "-c", _SCRIPT, api.host, str(package)]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "elsewhere" not in done.stdout
    assert len(done.stdout.splitlines()) == 4
    assert "remembered" not in repr(api.asked)
    assert api.experiments[0]["display_name"] == "nightly"
    assert sorted(tmp_path.rglob("*")) == before
