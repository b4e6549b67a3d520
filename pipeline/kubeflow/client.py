"""kfp.Client, reached as the environment says; what goes wrong is told in a sentence each."""

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from components.errors import PipelineStop

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_IN_CLUSTER_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
_LIMITS = (10.0, 60.0)
"""Seconds to connect, and for an answer; kfp.Client itself waits for ever."""
_LATER = {429, 500, 502, 503, 504}
_LONGEST_WAIT = 30.0
_LONGEST_WORDS = 600
"""Characters of the server's own words: its internal errors come with whole stack traces."""
_SHORTEST_SECRET = 8
"""Other cookies, as `lang=en`, occur in ordinary words."""
_CREDENTIALS = "KFP_TOKEN, KFP_TOKEN_FILE or KFP_COOKIES to what lets you in"
_OF_KUBE_CONFIG = ("KFP_TOKEN", "KFP_TOKEN_FILE", "KFP_COOKIES", "KFP_CA_CERT", "KFP_VERIFY_SSL")
Found = TypeVar("Found")


class NoAnswer(PipelineStop):
    """Nobody answered, or the answer was 'later': the same request may work in a while."""


@dataclass(frozen=True)
class Connection:
    """Where the API is, and as whom it is asked.

    Attributes:
      host: the API's address, without a slash at its end; "": through kube-config.
      namespace: whose resources, in an installation for several users.
      token: sent as `Authorization: Bearer …`.
      token_file: read anew for each request, since a mounted token is replaced now and then.
      cookies: sent as they are, e.g. `authservice_session=…`.
      ca_cert: the authority that signed the server's certificate, a PEM file.
      verify_ssl: whether the server's certificate is checked.
      kube_context: a context of kubectl's; "": the current one.
    """

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    cookies: str = field(default="", repr=False)
    ca_cert: str = ""
    verify_ssl: bool = True
    kube_context: str = ""

    @property
    def where(self) -> str:
        """The installation, for messages."""
        return self.host or f"the cluster of kube-config {self.kube_context}".rstrip()

    @property
    def credentials(self) -> str:
        """The kinds of credentials, never their values."""
        kinds = {
            "a token": self.token,
            f"the token in {self.token_file}": self.token_file,
            "cookies": self.cookies,
            "those of kube-config": not self.host,
        }
        return " and ".join(kind for kind, given in kinds.items() if given) or "none"

    def page(self, path: str) -> str:
        """A page of the UI."""
        return f"{self.host}/#{path}"

    def hide(self, text: str) -> str:
        """The text without any secret that a server may have put into its answer."""
        secrets = [self.token, _content(self.token_file) if self.token_file else ""]
        for cookie in self.cookies.split(";"):
            secrets.append(cookie.partition("=")[2].strip() or cookie.strip())
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text


def connection(environment: Mapping[str, str]) -> Connection:
    """The connection that the variables describe; see docs/kubeflow.md.

    Raises:
      PipelineStop: for everything that is wrong, in one message.
    """
    if problems := list(_problems(environment)):
        raise PipelineStop("\n".join(problems))
    given = {name: environment.get(f"KFP_{name.upper()}", "").strip() for name in _NAMES}
    host = _host(environment)
    by_kube_config = _by_kube_config(environment)
    if not host and not by_kube_config:
        host = IN_CLUSTER
        mounted = environment.get("KF_PIPELINES_SA_TOKEN_PATH") or _IN_CLUSTER_TOKEN
        if not given["token"] + given["cookies"] + given["token_file"] and Path(mounted).is_file():
            given["token_file"] = mounted
    verify = environment.get("KFP_VERIFY_SSL", "").lower() not in ("false", "0")
    return Connection("" if by_kube_config else host, verify_ssl=verify, **given)


_NAMES = ("namespace", "token", "token_file", "cookies", "ca_cert", "kube_context")


def _host(environment: Mapping[str, str]) -> str:
    """Without what follows a `#`: people copy the address of a page of the UI."""
    return environment.get("KFP_HOST", "").strip().partition("#")[0].rstrip("/")


def _by_kube_config(environment: Mapping[str, str]) -> bool:
    named = environment.get("KUBECONFIG") or environment.get("KFP_KUBE_CONTEXT")
    return bool(named) and not _host(environment)


def _problems(environment: Mapping[str, str]) -> Iterator[str]:
    host, by_kube_config = _host(environment), _by_kube_config(environment)
    if by_kube_config and (others := [name for name in _OF_KUBE_CONFIG if environment.get(name)]):
        yield (
            f"{', '.join(others)} can't be used with kube-config, which has its own credentials: "
            "unset it, or set KFP_HOST."
        )
    elif not host and not by_kube_config and "KUBERNETES_SERVICE_HOST" not in environment:
        yield (
            "No Kubeflow Pipelines to submit to: set KFP_HOST to its address, e.g. "
            "KFP_HOST=https://kubeflow.example.com/pipeline, or KFP_KUBE_CONTEXT to a context of "
            "kubectl's."
        )
    elif host and (problem := _address_problem(host)):
        yield problem
    if environment.get("KFP_TOKEN") and environment.get("KFP_TOKEN_FILE"):
        yield "KFP_TOKEN and KFP_TOKEN_FILE are both set: keep one."
    if ((file := environment.get("KFP_TOKEN_FILE")) and not _content(file).isprintable()) or (
        file and not _content(file)
    ):
        yield f"KFP_TOKEN_FILE is {file}, where no token can be read."
    for name in ("KFP_TOKEN", "KFP_COOKIES"):
        given = environment.get(name, "").strip()
        if not (given.isascii() and given.isprintable()):
            yield f"{name} has a line break or a character in it that no HTTP header can have."
    if (file := environment.get("KFP_CA_CERT")) and not Path(file).is_file():
        yield f"KFP_CA_CERT is {file}, which is no file: name the authority's PEM file."
    if (given := environment.get("KFP_VERIFY_SSL", "")).lower() not in ("", *"01", "true", "false"):
        yield f"KFP_VERIFY_SSL is '{given}': it may be true or false."


def _address_problem(host: str) -> str:
    try:
        parts = urlsplit(host)
        port = parts.port
    except ValueError:
        return f"KFP_HOST is '{host}', which is no address."
    del port
    if "@" in parts.netloc:
        return "KFP_HOST has a user or password in it: use KFP_TOKEN or KFP_COOKIES for that."
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"KFP_HOST is '{host}': it begins with http:// or https://, and has a host."
    return ""


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


class Api:
    """kfp.Client behind `ask`, which turns what goes wrong into a sentence."""

    def __init__(self, reached: Connection):
        """Makes the client; nothing is sent yet.

        Raises:
          PipelineStop: kube-config can't be used.
        """
        self.connection = reached
        warnings.simplefilter("ignore")  # kfp.Client's about its age, urllib3's about certificates
        self.client = _client(reached)

    def ask(self, doing: str, request: Callable[..., Found], *values: Any, **named: Any) -> Found:
        """Sends a request.

        Args:
          doing: what it is for, as in "refused to {doing}".
          request: a method of kfp.Client or of a service below it.
          values: its arguments.
          named: its arguments by name.

        Raises:
          NoAnswer: it may work later.
          PipelineStop: it doesn't.
        """
        try:
            return request(*values, **named)
        except Exception as error:
            if (stop := explain(error, doing, self.connection)) is None:
                raise
            # The server's headers are in the original error, and may hold a session's cookie.
            raise stop from None


def patiently(seconds: float, work: Callable[[], Found]) -> Found:
    """Does `work`, again and again while nobody answers, for so many seconds.

    Raises:
      NoAnswer: the last one.
    """
    deadline, wait = time.monotonic() + seconds, 0.2
    while True:
        try:
            return work()
        except NoAnswer as stop:
            if time.monotonic() + wait > deadline:
                raise
            logging.warning("%s Asking again ...", stop)
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _client(reached: Connection) -> Any:
    import kfp
    import kubernetes
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    class Client(kfp.Client):
        """kfp.Client without a memory of its own: it would read ~/.config/kfp/context.json."""

        def _load_context_setting_or_default(self) -> None:
            # With any namespace at all it doesn't ask the server for one, to write it down.
            self._context_setting = {"namespace": "none yet"}

        def _is_inverse_proxy_host(self, host: str) -> bool:
            return False  # for Google's hosts it would take the credentials of gcloud, unasked

    file = reached.token_file
    try:
        if not reached.host:  # kfp.Client would print that it failed, and go on
            kubernetes.config.load_kube_config(context=reached.kube_context or None)
        client = Client(
            host=reached.host or None,
            existing_token=reached.token or None,
            cookies=reached.cookies,
            ssl_ca_cert=reached.ca_cert or None,
            verify_ssl=reached.verify_ssl,
            kube_context=reached.kube_context or None,
            credentials=ServiceAccountTokenVolumeCredentials(file) if file else None,
        )
    except (kubernetes.config.ConfigException, OSError, ValueError) as error:
        raise PipelineStop(
            f"kube-config can't be used ({error}). Check KUBECONFIG and KFP_KUBE_CONTEXT."
        ) from error
    client._context_setting = {"namespace": reached.namespace}
    rest = client._run_api.api_client.rest_client
    send = rest.request

    def limited(*values: Any, _request_timeout: Any = None, **named: Any) -> Any:
        return send(*values, _request_timeout=_request_timeout or _LIMITS, **named)

    rest.request = limited
    # Neither urllib3's own retries, which would repeat a request that makes something, nor
    # redirects, which lead to login pages.
    rest.pool_manager.connection_pool_kw["retries"] = False
    return client


def connect(reached: Connection) -> Api:
    """The API, after a first question to it.

    Raises:
      PipelineStop: nobody answers, or it is for several users and no namespace is given.
    """
    api = Api(reached)
    service = api.client._healthz_api
    health = api.ask("ask how it is", service.healthz_service_get_healthz)
    kind = service.api_client.last_response.getheader("content-type") or ""
    if "json" not in kind:
        raise _not_the_api(api.connection)
    if health.multi_user and not api.connection.namespace:
        raise PipelineStop(
            f"{api.connection.where} serves several users: set KFP_NAMESPACE to your namespace."
        )
    return api


def find_pipeline(api: Api, name: str) -> str | None:
    """The id of the pipeline of this name, if it is there."""
    asked = {"filter": _matching("name", name)}
    namespace = api.connection.namespace
    asked |= {"namespace": namespace} if namespace else {}
    found = api.ask("look up the pipeline", api.client.list_pipelines, **asked).pipelines or []
    return next((str(one.pipeline_id) for one in found if name in _names(one)), None)


def find_version(api: Api, pipeline_id: str, digest: str) -> str | None:
    """The id of the newest version of a pipeline with this content, if it is there."""
    token, found = "", []
    while True:
        page = api.ask(
            "look up the pipeline's versions",
            api.client.list_pipeline_versions,
            pipeline_id,
            page_token=token,
            page_size=100,
        )
        for one in page.pipeline_versions or []:
            if any(name.endswith(f"-{digest}") for name in _names(one)):
                found.append(one)
        if not (token := page.next_page_token or ""):
            break
    newest = max(found, key=lambda one: one.created_at, default=None)
    return newest and str(newest.pipeline_version_id)


def find_run(api: Api, name: str, pipeline_id: str) -> str | None:
    """The id of the first run of this name and pipeline, in whatever state, archived ones too."""
    asked = {"filter": _matching("display_name", name), "page_size": 100}
    namespace = api.connection.namespace
    asked |= {"namespace": namespace} if namespace else {}
    service = api.client._run_api  # kfp.Client's own list leaves out archived runs
    runs = api.ask("look up the run", service.run_service_list_runs, **asked).runs or []
    found = [
        one
        for one in runs
        if one.display_name == name
        and one.pipeline_version_reference
        and one.pipeline_version_reference.pipeline_id == pipeline_id
    ]
    return str(min(found, key=lambda one: one.created_at).run_id) if found else None


def start_run(api: Api, name: str, experiment: str, **what: Any) -> str:
    """Starts a run, in an experiment that is made if need be, and returns its id.

    Caching isn't mentioned: `enable_caching` would override what each task of the package says.

    Args:
      api: the API.
      name: the run's.
      experiment: its experiment's.
      what: `pipeline_id`, `version_id`, `params`, `pipeline_root`, `service_account`.

    Raises:
      NoAnswer: it may have been made or not.
      PipelineStop: the server refuses it, in its own words.
    """
    made = api.ask(f"make the experiment '{experiment}'", api.client.create_experiment, experiment)
    run = api.ask("create the run", api.client.run_pipeline, made.experiment_id, name, **what)
    return str(run.run_id)


def _matching(key: str, value: str) -> str:
    """A filter for a list: what has this value there."""
    return json.dumps({"predicates": [{"key": key, "operation": "EQUALS", "stringValue": value}]})


def _names(one: Any) -> set[str]:
    """Before 2.15 the API had only the name that is shown."""
    return {str(name) for name in (getattr(one, "name", None), one.display_name) if name}


def explain(error: Exception, doing: str, reached: Connection) -> PipelineStop | None:
    """The sentence for a failed request; None for a fault of the code.

    Args:
      error: what the client raised.
      doing: what the request was for, e.g. `create the run`.
      reached: whom it went to.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError, LocationValueError

    if isinstance(error.__context__, ApiException):
        # kfp_server_api trips over TLS errors, which have no body, and pages that aren't UTF-8.
        error = error.__context__
    if isinstance(error, ApiException):
        return _refused(error, doing, reached) if error.status else _tls(error, reached)
    if isinstance(error, UnicodeDecodeError):
        return _not_the_api(reached)
    if isinstance(error, LocationValueError):
        return PipelineStop(f"KFP_HOST is '{reached.where}', which is no address.")
    if isinstance(error, HTTPError):
        text = str(error.args[-1] if error.args else error).rpartition(": ")[2].rstrip(".')")
        return NoAnswer(
            f"{reached.where} can't be reached to {doing} ({text}). Check KFP_HOST, and whether "
            "the way there is open (VPN, kubectl port-forward)."
        )
    if isinstance(error, OSError):
        return PipelineStop(f"The token can't be read: {error}. Check KFP_TOKEN_FILE.")
    return None


def _not_the_api(reached: Connection) -> PipelineStop:
    return PipelineStop(
        f"{reached.where} answers, but not as the Kubeflow Pipelines API does (a login page?): set "
        f"KFP_HOST to the address that has /apis/v2beta1 below it, and {_CREDENTIALS}."
    )


def _tls(error: Any, reached: Connection) -> PipelineStop:
    reason = str(error.reason).partition("\n")[2].partition(" (_ssl")[0]
    text = reason.rpartition("] ")[2] or str(error.reason)
    advice = "check KFP_CA_CERT, and whether the address begins with http:// rather than https://"
    if "mismatch" in text:
        advice = "set KFP_HOST to the name in the certificate"
    elif "CERTIFICATE_VERIFY_FAILED" in reason:
        advice = "set KFP_CA_CERT to the PEM file of the authority that signed its certificate"
    return PipelineStop(f"No TLS connection with {reached.where} ({text}): {advice}.")


def _refused(error: Any, doing: str, reached: Connection) -> PipelineStop:
    where, words = reached.where, reached.hide(_words(error))
    said = f" ({error.status}: {words})" if words else f" ({error.status})"
    if 300 <= error.status < 400:
        location = (error.headers or {}).get("location", "")
        to = urlsplit(urljoin(f"{reached.host}/", location))  # its query may hold secrets
        return PipelineStop(
            f"{where} sends us to {to.scheme}://{to.hostname}{to.path} instead of answering "
            f"({error.status}): set KFP_HOST to the API's own address, and {_CREDENTIALS}."
        )
    if error.status == 401:
        return PipelineStop(
            f"{where} wants to know who asks{said}; credentials given: {reached.credentials}. Set "
            f"{_CREDENTIALS}; a token may have expired."
        )
    if error.status == 403:
        return PipelineStop(
            f"{where} doesn't let you {doing}{said}. Set KFP_NAMESPACE (now: "
            f"{reached.namespace or 'not set'}) to a namespace of yours, or ask for the right."
        )
    if error.status == 404 and not words:
        return _not_the_api(reached)
    if error.status in _LATER:
        return NoAnswer(f"{where} could not {doing}{said}. Try again in a while.")
    return PipelineStop(f"{where} refused to {doing}{said}.")


def _words(error: Any) -> str:
    """The server's own words: its JSON's message, or plain text; nothing of a page for people."""
    body = error.body or ""
    text = body if isinstance(body, str) else body.decode(errors="replace")
    try:
        found = json.loads(text)
        text = found.get("message") or found.get("error_message") or found.get("error") or ""
    except (ValueError, AttributeError):
        if "text/plain" not in (error.headers or {}).get("content-type", ""):
            return ""
    return str(text).strip().partition("\n")[0][:_LONGEST_WORDS].rstrip(".")
