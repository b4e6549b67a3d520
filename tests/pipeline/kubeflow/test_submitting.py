"""`submit` against an HTTP server with the API's shapes: what is sent, shown and returned."""

import json
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.errors import PipelineStop
from pipeline import loading
from pipeline.kubeflow import client, compiling, parameters, retraining, submitting
from tests.pipeline.kubeflow.api import Api, rows, served

DATA = "data_path=/mnt/data"
ROWS = "input=/mnt/data/*.csv"


@pytest.fixture
def api(monkeypatch):
    for name in ("KUBECONFIG", "KFP_KUBE_CONTEXT", "KFP_TOKEN", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    made = Api()
    with served(made) as made.host:
        monkeypatch.setenv("KFP_HOST", made.host)
        yield made


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "BUILD", tmp_path)


def submit(*values: str, which="batch-predict", **options):
    """The exit code, and the lines shown. The package of one step compiles in no time."""
    lines: list[str] = []
    target = compiling.load_target("kubeflow")
    code = submitting.main(target, lines.append, which=which, param=list(values), **options)
    return code, "\n".join(lines)


def paths(api, method):
    return [path for kind, path, _ in api.asked if kind == method]


def test_a_run_is_uploaded_started_followed_and_the_version_is_there_the_next_time(api):
    first, then = rows(example_gen="RUNNING"), rows(example_gen="SUCCEEDED", trainer="cached")
    api.polls = [{"state": "RUNNING"} | first, {"state": "SUCCEEDED"} | then]
    code, shown = submit(DATA, "steps=5", which="training")
    assert code == 0, shown
    [run] = api.kept["runs"]
    assert run["runtime_config"]["parameters"] == {"data_path": "/mnt/data", "steps": 5}
    assert run["runtime_config"]["pipeline_root"] == "minio://mlpipeline/v2/artifacts"
    assert "enable_caching" not in json.dumps(run)
    [version] = api.kept["pipeline_versions"]
    reference = run["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == version["pipeline_version_id"]
    lines = shown.splitlines()
    assert f"{api.host}/#/runs/details/runs-0" in shown
    started = next(i for i, line in enumerate(lines) if "example-gen" in line and "running" in line)
    assert any("example-gen" in line and "succeeded" in line for line in lines[started + 1 :])
    assert any("trainer" in line and "cached" in line for line in lines)
    assert lines[-1].startswith("SUCCEEDED")
    api.polls = [{"state": "SUCCEEDED"}]
    assert "(there already)" in submit(DATA, which="training")[1]
    assert len(api.kept["pipeline_versions"]) == 1


def test_why_a_step_failed_is_printed_from_its_log_with_a_command_that_works(api):
    api.polls = [{"state": "FAILED"} | rows(batch_predict="FAILED")]
    api.log = (
        "2026 Gate starts\nGate failed: method: barter is unknown.\nI1 launcher.go:1] exit 1\n"
    )
    code, shown = submit(ROWS)
    assert code == 1
    assert "\nGate failed: method: barter is unknown.\n" in f"\n{shown}\n"
    pod = "small-x7k2p-retry-system-container-impl-1000"
    assert f"kubectl logs -n kubeflow {pod} -c main" in shown
    [asked] = [path for path in paths(api, "GET") if "/nodes/" in path]
    assert asked.endswith("/nodes/small-x7k2p-1000/log")
    assert "POD" not in shown


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("starts\nNo such version.\nI1128 x] exit\n", "Its end: No such version."),
        (None, "can't be read from here"),
    ],
)
def test_a_log_without_a_reason_is_told_in_words(api, log, words):
    api.polls = [{"state": "FAILED"} | rows(batch_predict="FAILED")]
    api.log = log
    code, shown = submit(ROWS)
    assert code == 1
    assert words in shown
    assert "retry-system-container-impl-1000" in shown


def test_a_cancelled_run_ends_and_one_that_never_does_is_left(api):
    api.polls = [{"state": "CANCELED"}]
    code, shown = submit(ROWS)
    assert (code, shown.splitlines()[-1].split()[0]) == (1, "CANCELED")
    api.polls = [{"state": "RUNNING"}]
    code, shown = submit(ROWS, timeout=0.5 / 3600)
    assert code == 3
    assert "After 0.5 s the run is still RUNNING." in shown
    assert ":terminate" in shown


def test_a_dry_run_sends_nothing_and_shows_no_secret(api, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "very-secret-token")
    code, shown = submit(ROWS, dry_run=True)
    assert (code, api.asked) == (0, [])
    assert "credentials: token" in shown
    assert "very-secret" not in shown


def test_a_schedule_replaces_the_one_of_its_name_and_there_is_never_none(api):
    old = "taxi-automated-batch-predict"
    api.keep("recurringRuns", recurring_run_id="old", display_name=old, status="ENABLED")
    code, shown = submit(ROWS, schedule="0 0 6 * * *")
    assert code == 0, shown
    [new] = api.kept["recurringRuns"]
    assert (new["mode"], new["trigger"]["cron_schedule"]["cron"]) == ("ENABLE", "0 0 6 * * *")
    assert new["max_concurrency"] == 1
    assert new["no_catchup"]
    methods = [(kind, query) for kind, path, query in api.asked if "recurringruns" in path]
    assert [kind for kind, _ in methods] == ["GET", "POST", "DELETE"]
    assert methods[2][1]["propagation_policy"] == ["ORPHAN"]


def test_five_fields_and_a_frozen_fingerprint_are_refused_before_anything_is_sent(api):
    with pytest.raises(PipelineStop, match="six fields are wanted"):
        submit(schedule="0 6 * * *")
    with pytest.raises(PipelineStop, match="data_fingerprint can't be given with --schedule"):
        submit("data_fingerprint=x", schedule="0 0 6 * * *", which="training")
    assert api.asked == []


@pytest.mark.parametrize(
    ("status", "body", "headers", "told"),
    [
        (
            401,
            '{"message": "no very-secret-token"}',
            {},
            "refused GET /apis/v2beta1/healthz (401: no ***",
        ),
        (
            403,
            '{"message": "not yours"}',
            {},
            "(403: not yours). Set KFP_NAMESPACE",
        ),
        (404, "<html>", {"Content-Type": "text/html"}, "not as the Kubeflow Pipelines API does"),
        (200, "<html>login</html>", {"Content-Type": "text/html"}, "not as the Kubeflow"),
        (302, "", {"Location": "https://login.example/x?secret=1"}, "not as the Kubeflow"),
        (503, "no healthy upstream", {"Content-Type": "text/plain"}, "Try again in a while"),
    ],
)
def test_an_installation_that_does_not_let_us_in(api, monkeypatch, status, body, headers, told):
    monkeypatch.setenv("KFP_TOKEN", "very-secret-token")
    api.refusals = [("healthz", status, body, headers)]
    with pytest.raises(PipelineStop) as caught:
        submit(ROWS)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    assert api.headers["authorization"] == "Bearer very-secret-token"


def test_a_package_that_is_refused_is_told_in_the_servers_words(api):
    api.refusals = [("upload_version", 400, '{"message": "unknown template format"}', {})]
    with pytest.raises(PipelineStop, match=r"refused POST .*/upload_version.*unknown template"):
        submit(ROWS)
    with pytest.raises(PipelineStop, match=r"lr: no such parameter; there are data_path"):
        submit(DATA, "lr=1", which="training")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "No Kubeflow Pipelines to submit to: set KFP_HOST"),
        ({"KFP_HOST": "kubeflow.example"}, "is to be http:// or https://"),
        ({"KFP_HOST": "https://me:pw@x"}, "no user or password"),
        ({"KFP_HOST": "http://x", "KFP_TOKEN": "a", "KFP_TOKEN_FILE": "/x"}, "are both set"),
        ({"KFP_HOST": "http://x", "KFP_TOKEN_FILE": "/nothing"}, "where nothing can be read"),
        ({"KFP_HOST": "http://x", "KFP_CA_CERT": "/nothing"}, "KFP_CA_CERT is /nothing"),
        ({"KUBECONFIG": "/x", "KFP_TOKEN": "a"}, "can't be used with kube-config"),
    ],
)
def test_an_environment_that_leads_nowhere(environment, told, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PipelineStop, match=told):
        client.Api()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubeflow.example")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, path = serialization.Encoding.PEM, tmp_path_factory.mktemp("tls") / "both.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *form))
    return path


def test_a_certificate_is_checked_against_the_authority_that_is_named(certificate, monkeypatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with served(Api(), tls) as host:
        monkeypatch.setenv("KFP_HOST", host)
        with pytest.raises(PipelineStop) as caught:
            submit(ROWS)
        told = str(caught.value)
        assert told.startswith(f"No TLS connection with {host} (certificate verify failed: self")
        assert "KFP_CA_CERT to the PEM file of the authority" in told
        monkeypatch.setenv("KFP_CA_CERT", str(certificate))
        assert submit(ROWS)[0] == 0
        monkeypatch.setenv("KFP_HOST", host.replace("127.0.0.1", "localhost"))
        with pytest.raises(PipelineStop, match=r"No TLS connection .*localhost.*mismatch"):
            submit(ROWS)
        monkeypatch.setenv("KFP_VERIFY_SSL", "false")
        code, shown = submit(ROWS)
    assert (code, shown.splitlines()[0]) == (
        *(0, "KFP_VERIFY_SSL=false: the server's certificate is not checked."),
    )


def test_a_server_without_tls(api, monkeypatch):
    monkeypatch.setenv("KFP_HOST", api.host.replace("http:", "https:"))
    with pytest.raises(PipelineStop, match=r"No TLS connection .* begins with http://"):
        submit(ROWS)


def test_nobody_there(monkeypatch):
    monkeypatch.setenv("KFP_HOST", "http://127.0.0.1:9")
    with pytest.raises(PipelineStop, match=r"can't be reached for GET .*/healthz \(.*refused"):
        submit(ROWS)


def test_the_same_data_elsewhere_and_later_has_the_same_fingerprint(tmp_path, monkeypatch):
    config = parameters.load("automated")
    here = loading.data_folder(config)
    found = []
    for name in ("one", "two"):
        shutil.copytree(here, tmp_path / name, copy_function=shutil.copyfile)
        monkeypatch.setattr(loading, "in_package", lambda *_, n=name: Path(tmp_path / n))
        found.append(submitting.data_fingerprint(config))
    assert found[0] == found[1]
    file = next((tmp_path / "two").glob("*.csv"))
    file.write_text(file.read_text().replace("0", "1", 1))
    assert submitting.data_fingerprint(config) != found[0]
    elsewhere = parameters.changed(config, {"data_path": "/mnt/data"})
    assert submitting.data_fingerprint(elsewhere) is None


def start(api, name="span-17-v3"):
    return retraining.start(
        name,
        {"spans": {"count": 4, "last": 17}, "warm_start": 3, "data_path": "/mnt/data"},
        pipeline="taxi-automated",
        digest="abc",
        experiment="taxi",
        service_account=None,
        pipeline_root=None,
        patience=1.0,
    )


def test_a_retraining_runs_the_pinned_version_once(api):
    api.keep("pipelines", pipeline_id="p", display_name="taxi-automated")
    for name, version in (("1-abc", "meant"), ("2-def", "experiment")):
        api.keep("pipeline_versions", pipeline_version_id=version, display_name=name)
    first = start(api)
    assert start(api) == first
    [run] = api.kept["runs"]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == "meant"
    assert run["runtime_config"]["parameters"] == {
        "data_path": "/mnt/data",
        "data_fingerprint": "span-17-v3",
        "span": '{"count": 4, "last": 17}',
        "test_spans": "newest",
        "warm_start": "3",
    }
    api.kept["pipeline_versions"].pop(0)
    with pytest.raises(PipelineStop, match=r"no version of the pipeline .* ends with abc"):
        start(api, "span-18-v3")


def test_a_server_that_is_busy_is_asked_again(api):
    api.keep("pipelines", pipeline_id="p", display_name="taxi-automated")
    api.keep("pipeline_versions", display_name="1-abc")
    api.refusals = [("GET .*/runs", 503, "", {})]
    assert start(api)


def test_submitting_continued_evaluation_uploads_what_it_retrains_with(api):
    pytest.importorskip("components.continued_evaluation.part")
    code, shown = submit(which="continued-evaluation")
    assert code == 0, shown
    names = [one["display_name"] for one in api.kept["pipelines"]]
    assert names == ["taxi-automated", "taxi-automated-continued-evaluation"]
