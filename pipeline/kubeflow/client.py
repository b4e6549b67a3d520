"""kfp.Client, reached as the environment says; what goes wrong is told in a sentence each."""

import functools
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from components.errors import PipelineStop

BUSY = (429, 500, 502, 503, 504)
"""Statuses of answers that say: later."""
_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_TOKEN_IN_CLUSTER = "/var/run/secrets/kubeflow/pipelines/token"
_LIMITS = (10.0, 60.0)
"""Seconds to connect, and for an answer; kfp.Client itself waits for ever."""
_LONGEST_WORDS = 600
"""Characters of the server's own words: its internal errors come with whole stack traces."""
_CREDENTIALS = "KFP_TOKEN, KFP_TOKEN_FILE or KFP_COOKIES to what lets you in"
_NAMES = ("namespace", "token", "token_file", "cookies", "ca_cert", "kube_context")
Found = TypeVar("Found")


class NoAnswer(PipelineStop):
    """Nobody answered, or the answer was 'later': the same request may work in a while."""


def patiently(seconds: float, work: Callable[[], Found]) -> Found:
    """Does `work`, again and again while there is NoAnswer, for so many seconds."""
    deadline, wait = time.monotonic() + seconds, 0.2
    while True:
        try:
            return work()
        except NoAnswer as stop:
            if time.monotonic() + wait > deadline:
                raise
            logging.warning("%s Asking again ...", stop)
        time.sleep(wait)
        wait = min(wait * 2, 30.0)


class Api:
    """Where the API is and as whom it is asked, and kfp.Client, whose errors are PipelineStop."""

    def __init__(self) -> None:
        """Reads the environment, as docs/kubeflow.md says; nothing is sent yet.

        Raises:
          PipelineStop: for everything that is wrong, in one message.
        """
        self._given = {name: os.environ.get(f"KFP_{name.upper()}", "").strip() for name in _NAMES}
        self.namespace = self._given["namespace"]
        self._mine = {"namespace": self.namespace} if self.namespace else {}
        self.is_verified = os.environ.get("KFP_VERIFY_SSL", "").lower() not in ("false", "0")
        # Without what follows a `#`: people copy the address of a page of the UI.
        self.host = os.environ.get("KFP_HOST", "").partition("#")[0].strip().rstrip("/")
        is_outside = self.host or self._given["kube_context"] or os.environ.get("KUBECONFIG")
        if problems := [*self._problems(bool(is_outside))]:
            raise PipelineStop("\n".join(problems))
        if not is_outside:
            self.host = _IN_CLUSTER
            mounted = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _TOKEN_IN_CLUSTER)
            if self.credentials == "none" and _content(mounted):
                self._given["token_file"] = mounted
        self.where = self.host or f"the cluster of kube-config {self._given['kube_context']}"

    def _problems(self, is_outside: bool) -> Iterator[str]:
        token, cookies = self._given["token"], self._given["cookies"]
        address = urlsplit(self.host)
        is_address = address.scheme in ("http", "https") and "@" not in address.netloc
        if self.host and not (is_address and address.netloc):
            yield "KFP_HOST is to be http:// or https://, a host, and no user or password."
        if not is_outside and "KUBERNETES_SERVICE_HOST" not in os.environ:
            yield (
                "No Kubeflow Pipelines to submit to: set KFP_HOST to its address, e.g. "
                "https://kubeflow.example.com/pipeline, or KFP_KUBE_CONTEXT to a kubectl context."
            )
        if is_outside and not self.host and token + cookies:
            yield "KFP_TOKEN and KFP_COOKIES can't be used with kube-config: set KFP_HOST."
        if token and self._given["token_file"]:
            yield "KFP_TOKEN and KFP_TOKEN_FILE are both set: keep one."
        for name in ("token_file", "ca_cert"):
            if (file := self._given[name]) and not _content(file):
                yield f"KFP_{name.upper()} is {file}, where nothing can be read."
        if not ((token + cookies).isascii() and (token + cookies).isprintable()):
            yield "KFP_TOKEN or KFP_COOKIES has a character in it that no HTTP header can have."

    @property
    def credentials(self) -> str:
        """The kinds of credentials, never their values."""
        kinds = [name for name in ("token", "token_file", "cookies") if self._given[name]]
        return " and ".join(kinds or (["kube-config"] if not self.host else [])) or "none"

    @functools.cached_property
    def client(self) -> Any:
        """kfp.Client, without a memory of its own: it would read ~/.config/kfp/context.json."""
        import kfp
        import kubernetes
        from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

        class Client(kfp.Client):
            def _load_context_setting_or_default(self) -> None:
                # With any namespace at all it doesn't ask the server for one, to write it down.
                self._context_setting = {"namespace": "none yet"}

        warnings.simplefilter("ignore")  # kfp.Client's about its age, urllib3's about certificates
        given = {name: value or None for name, value in self._given.items()}
        file = given["token_file"]
        try:
            if not self.host:  # kfp.Client would print that it failed, and go on
                kubernetes.config.load_kube_config(context=given["kube_context"])
            client = Client(
                host=self.host or None,
                existing_token=given["token"],
                cookies=given["cookies"] or "",
                ssl_ca_cert=given["ca_cert"],
                verify_ssl=self.is_verified,
                kube_context=given["kube_context"],
                credentials=ServiceAccountTokenVolumeCredentials(file) if file else None,
            )
        except (kubernetes.config.ConfigException, OSError, ValueError) as error:
            raise PipelineStop(
                f"kube-config can't be used ({error}). Check KUBECONFIG and KFP_KUBE_CONTEXT."
            ) from error
        client._context_setting = {"namespace": self.namespace}
        rest = client._run_api.api_client.rest_client
        rest.request = functools.partial(self._send, rest.request)
        # Neither urllib3's own retries, which would repeat a request that makes something, nor
        # redirects, which lead to login pages.
        rest.pool_manager.connection_pool_kw["retries"] = False
        return client

    def _send(self, send: Callable[..., Any], method: str, url: str, **named: Any) -> Any:
        """Every request of the client's. NoAnswer: it may work later. PipelineStop: it doesn't."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        what = f"{method} {urlsplit(url).path}"
        named["_request_timeout"] = named.get("_request_timeout") or _LIMITS
        try:
            answer = send(method, url, **named)
            if "html" not in (answer.getheader("content-type") or ""):
                return answer
            stop: PipelineStop = self._not_the_api()
        except ApiException as error:
            stop = self._refused(error, what)
        except HTTPError as error:
            reason = str(error).rpartition(": ")[2].strip("').")
            stop = NoAnswer(
                f"{self.where} can't be reached for {what} ({reason}). Check KFP_HOST, and whether "
                "the way there is open (VPN, kubectl port-forward)."
            )
        if isinstance(stop, NoAnswer) and method == "POST":
            stop = NoAnswer(f"{stop} Look whether it was done all the same, before you try again.")
        # The server's headers are in the original error, and may hold a session's cookie.
        raise stop from None

    def greet(self) -> None:
        """Asks a first question.

        Raises:
          PipelineStop: nobody answers, or it is for several users and no namespace is given.
        """
        health = self.client._healthz_api.healthz_service_get_healthz()
        if health.multi_user and not self.namespace:
            raise PipelineStop(
                f"{self.where} serves several users: set KFP_NAMESPACE to your namespace."
            )

    def find_pipeline(self, name: str) -> str | None:
        """The id of the pipeline of this name, if it is there."""
        found = self.client.list_pipelines(filter=_matching("name", name), **self._mine).pipelines
        return next((one.pipeline_id for one in found or [] if one.display_name == name), None)

    def find_version(self, pipeline_id: str, digest: str) -> str | None:
        """The id of the newest version of a pipeline with this content, if it is there."""
        asked = {"page_size": 100, "sort_by": "created_at desc", "page_token": ""}
        while True:
            page = self.client.list_pipeline_versions(pipeline_id, **asked)
            for one in page.pipeline_versions or []:
                if one.display_name.endswith(f"-{digest}"):
                    return str(one.pipeline_version_id)
            if not page.next_page_token:
                return None
            asked["page_token"] = page.next_page_token

    def find_run(self, name: str, pipeline_id: str) -> str | None:
        """The id of the first run of this name and pipeline, in whatever state, archived too."""
        list_runs = self.client._run_api.run_service_list_runs  # kfp.Client's leaves out archived
        asked = {"filter": _matching("display_name", name), "page_size": 100, **self._mine}
        for one in list_runs(sort_by="created_at asc", **asked).runs or []:
            reference = one.pipeline_version_reference
            if one.display_name == name and reference and reference.pipeline_id == pipeline_id:
                return str(one.run_id)
        return None

    def make_pipeline(self, name: str) -> str:
        """Makes a pipeline without versions: an upload would name the first after the pipeline."""
        create = self.client._pipelines_api.pipeline_service_create_pipeline
        return str(create(pipeline={"display_name": name, **self._mine}).pipeline_id)

    def start_run(self, name: str, experiment: str, **what: Any) -> str:
        """Starts a run, in an experiment that is made if need be, and returns its id.

        Caching isn't mentioned: `enable_caching` would override what each task says.
        """
        made = self.client.create_experiment(experiment).experiment_id
        return str(self.client.run_pipeline(made, name, **what).run_id)

    def _refused(self, error: Any, what: str) -> PipelineStop:
        """The sentence for an answer that is none of success."""
        if not error.status:
            reason = str(error.reason).partition(" (_ssl")[0].rpartition("] ")[2].strip()
            return PipelineStop(
                f"No TLS connection with {self.where} ({reason}): set KFP_HOST to the name in its "
                "certificate, and KFP_CA_CERT to the PEM file of the authority that signed it; or "
                "its address begins with http://."
            )
        words = self._hide(words_of(error))
        said = f" ({error.status}: {words})" if words else f" ({error.status})"
        if error.status in (301, 302, 303, 307, 308) or (error.status == 404 and not words):
            return self._not_the_api()
        if error.status in BUSY:
            return NoAnswer(f"{self.where} can't do {what} now{said}. Try again in a while.")
        advice = {
            401: f" Credentials given: {self.credentials}. Set {_CREDENTIALS}.",
            403: f" Set KFP_NAMESPACE (now: {self.namespace or 'not set'}) to one of yours.",
        }
        return PipelineStop(f"{self.where} refused {what}{said}.{advice.get(error.status, '')}")

    def _not_the_api(self) -> PipelineStop:
        return PipelineStop(
            f"{self.where} answers, but not as the Kubeflow Pipelines API does (a login page?): "
            f"set KFP_HOST to the address that has /apis/v2beta1 below it, and {_CREDENTIALS}."
        )

    def _hide(self, text: str) -> str:
        """The text without any secret that a server may have put into its answer."""
        cookies = [one.partition("=")[2] or one for one in self._given["cookies"].split(";")]
        for secret in [self._given["token"], _content(self._given["token_file"]), *cookies]:
            text = text.replace(secret.strip() or "***", "***")
        return text


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip() if file else ""
    except (OSError, ValueError):
        return ""


def _matching(key: str, value: str) -> str:
    """A filter for a list: what has this value there."""
    return json.dumps({"predicates": [{"key": key, "operation": "EQUALS", "stringValue": value}]})


def words_of(error: Any) -> str:
    """The server's own words: its JSON's message, or plain text; nothing of a page for people."""
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    try:
        text = json.loads(text)["message"]
    except (ValueError, TypeError, KeyError):
        if "text/plain" not in (error.headers or {}).get("content-type", ""):
            return ""
    return str(text or "").strip().partition("\n")[0][:_LONGEST_WORDS].rstrip(".")
