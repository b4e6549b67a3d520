"""What a person is told when the API doesn't do what it was asked."""

import pytest

from components.errors import PipelineStop
from tests.pipeline.kubeflow.submit.conftest import COOKIE, TOKEN, Run
from tests.pipeline.kubeflow.submit.fake_api import FakeApi, Fault

_LOGIN = Fault(200, "<html>Please log in</html>", "text/html")


def _stopped(run: Run, **fields: object) -> str:
    with pytest.raises(PipelineStop) as caught:
        run(**fields)
    text = str(caught.value)
    assert "\n" not in text
    # A traceback would show the server's headers, and a cookie in them.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"data": "x", "spam": 1},
            "parameter(s) provided are not required by pipeline: spam). The package takes: ",
        ),
        ({"data": 1}, "input parameter data requires type string, but"),
        ({"data": "x", "span": "2"}, "input parameter span requires type double or integer"),
        ({}, "parameter data is not optional, yet has neither default value nor user provided"),
    ],
)
def test_parameters_are_refused_in_the_servers_words(
    run: Run, api: FakeApi, parameters: dict[str, object], words: str
) -> None:
    text = _stopped(run, parameters=parameters)
    assert text.startswith(f"{api.host} refused to create the run (400: ")
    assert words in text
    assert text.endswith("data (STRING), promote (BOOLEAN), span (NUMBER_INTEGER).")
    assert not api.runs


def test_a_host_that_is_not_there(run: Run, free_port: int) -> None:
    text = _stopped(run, environment={"KFP_HOST": f"http://127.0.0.1:{free_port}"})
    assert f"http://127.0.0.1:{free_port} can't be reached to ask how it is (" in text
    assert "Connection refused" in text
    assert "Check KFP_HOST" in text


def test_a_name_that_is_not_known(run: Run) -> None:
    text = _stopped(run, environment={"KFP_HOST": "http://kubeflow.invalid"})
    assert "http://kubeflow.invalid can't be reached" in text


def test_an_address_that_is_none(run: Run) -> None:
    text = _stopped(run, environment={"KFP_HOST": "http://[there"})
    assert "KFP_HOST is 'http://[there'" in text


def test_a_server_that_hangs_up(run: Run, api: FakeApi) -> None:
    api.fail("healthz", Fault(None))
    assert "Remote end closed connection" in _stopped(run)


def test_what_makes_something_is_sent_once(run: Run, api: FakeApi) -> None:
    api.fail("POST .*/runs$", Fault(None))
    text = _stopped(run)
    assert "can't be reached to create the run" in text
    assert text.endswith(f"look whether the run began all the same: {api.host}/#/runs")
    assert len(api.requests("POST .*/runs$")) == 1


@pytest.mark.parametrize(
    ("request_", "fault", "words"),
    [
        ("GET .*healthz", _LOGIN, "but not as the Kubeflow Pipelines API does"),
        ("GET .*healthz", Fault(404, "<html>", "text/html"), "but not as the Kubeflow"),
        ("GET .*healthz", Fault(200, "Zug\xe4nge", "text/html"), "but not as the Kube"),
        ("GET .*healthz", Fault(401, "Zug\xe4nge", "text/html"), "who asks (401);"),
        ("POST .*/runs$", _LOGIN, "but not as the Kubeflow Pipelines API does"),
        ("GET .*/experiments", Fault(401, "<html>", "text/html"), "wants to know who asks (401);"),
        ("GET .*/experiments", Fault(403, "RBAC: access denied"), "(403: RBAC: access denied)."),
        ("POST .*/experiments", Fault(409, '{"message": "is there."}'), "(409: is there)."),
        ("POST .*/runs$", Fault(503, "no healthy upstream"), "could not create the run (503: no"),
        ("POST .*/runs$", Fault(500, '{"error": "Internal\\n at x"}'), "(500: Internal). Try"),
        ("upload_version", Fault(413, "too large"), "refused to upload taxi.yaml (413: too large)"),
        ("POST .*/pipelines$", Fault(400, "{}"), "refused to make the pipeline 'taxi' (400)."),
        ("GET .*/pipelines", Fault(404, '{"message": "Not Found"}'), "(404: Not Found)."),
    ],
)
def test_answers(run: Run, api: FakeApi, request_: str, fault: Fault, words: str) -> None:
    api.fail(request_, fault)
    text = _stopped(run)
    assert text.startswith(api.host)
    assert words in text


def test_a_redirect_to_a_login_page_is_not_followed(run: Run, api: FakeApi) -> None:
    to = "https://login.example.com/auth?state=s3cr3t-state"
    headers = (("location", to), ("set-cookie", "oidc=s3cr3t-cookie"))
    api.fail("healthz", Fault(302, "<html>", "text/html", headers))
    text = _stopped(run)
    assert "sends us to https://login.example.com/auth instead of answering (302)" in text
    assert "s3cr3t" not in text
    assert len(api.asked) == 1
    api.fail("healthz", Fault(302, headers=(("location", "/dex/auth?state=1"),)))
    assert f"sends us to {api.host.rpartition(':')[0]}/dex/auth instead" in _stopped(run)


def test_secrets_that_the_server_repeats_are_hidden(run: Run, api: FakeApi) -> None:
    body = f'{{"message": "token {TOKEN} or session {COOKIE} is unknown"}}'
    api.fail("GET .*/pipelines", Fault(401, body, "application/json"))
    given = {"KFP_TOKEN": TOKEN, "KFP_COOKIES": f"a=b; session={COOKIE}"}
    assert "(401: token *** or session *** is unknown)" in _stopped(run, environment=given)


def test_a_pipeline_made_by_somebody_else_meanwhile(run: Run, api: FakeApi) -> None:
    words = "The name taxi already exist. Please specify a new name"
    api.fail("POST .*/pipelines$", Fault(409, f'{{"message": "{words}"}}', "application/json"))
    assert f"refused to make the pipeline 'taxi' (409: {words})" in _stopped(run)
