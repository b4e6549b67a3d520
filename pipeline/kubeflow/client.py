"""kfp.Client, reached as the environment says; what goes wrong is told in a sentence each."""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from components.errors import PipelineStop

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
    """Where the API is and as whom it is asked, and kfp.Client behind `ask`."""

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

    def _problems(self, is_outside: bool) -> Iterator[str]:
        host, given = self.host, self._given
        token, cookies = given["token"], given["cookies"]
        address = urlsplit(host)
        is_address = address.scheme in ("http", "https") and "@" not in address.netloc
        if host and not (is_address and address.netloc):
            yield "KFP_HOST is to be http:// or https://, a host, and no user or password."
        if not is_outside and "KUBERNETES_SERVICE_HOST" not in os.environ:
            yield (
                "No Kubeflow Pipelines to submit to: set KFP_HOST to its address, e.g. "
                "https://kubeflow.example.com/pipeline, or KFP_KUBE_CONTEXT to a kubectl context."
            )
        if is_outside and not host and token + cookies:
            yield "KFP_TOKEN and KFP_COOKIES can't be used with kube-config: set KFP_HOST."
        if token and given["token_file"]:
            yield "KFP_TOKEN and KFP_TOKEN_FILE are both set: keep one."
        for name in ("token_file", "ca_cert"):
            if given[name] and not _content(given[name]):
                yield f"KFP_{name.upper()} is {given[name]}, where nothing can be read."
        if not ((token + cookies).isascii() and (token + cookies).isprintable()):
            yield "KFP_TOKEN or KFP_COOKIES has a character in it that no HTTP header can have."

    @property
    def where(self) -> str:
        """The installation, for messages."""
        return self.host or f"the cluster of kube-config {self._given['kube_context']}".rstrip()

    @property
    def credentials(self) -> str:
        """The kinds of credentials, never their values."""
        kinds = [name for name in ("token", "token_file", "cookies") if self._given[name]]
        return " and ".join(kinds or (["kube-config"] if not self.host else [])) or "none"

    @cached_property
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
        send = rest.request

        def limited(*values: Any, _request_timeout: Any = None, **named: Any) -> Any:
            return send(*values, _request_timeout=_request_timeout or _LIMITS, **named)

        rest.request = limited
        # Neither urllib3's own retries, which would repeat a request that makes something, nor
        # redirects, which lead to login pages.
        rest.pool_manager.connection_pool_kw["retries"] = False
        return client

    def greet(self) -> None:
        """Asks a first question.

        Raises:
          PipelineStop: nobody answers, or it is for several users and no namespace is given.
        """
        service = self.client._healthz_api
        health = self.ask("ask how it is", service.healthz_service_get_healthz)
        if "json" not in (service.api_client.last_response.getheader("content-type") or ""):
            raise self._not_the_api()
        if health.multi_user and not self.namespace:
            raise PipelineStop(
                f"{self.where} serves several users: set KFP_NAMESPACE to your namespace."
            )

    def ask(self, doing: str, request: Callable[..., Found], *values: Any, **named: Any) -> Found:
        """Sends a request, a method of kfp.Client's; `doing` says for what: "refused to {doing}".

        Raises:
          NoAnswer: it may work later.
          PipelineStop: it doesn't.
        """
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return request(*values, **named)
        except Exception as error:
            # kfp_server_api trips over TLS errors, which have no body, and pages that aren't UTF-8.
            cause = error.__context__ if isinstance(error.__context__, ApiException) else error
            if isinstance(cause, ApiException):
                stop = self._refused(cause, doing)
            elif isinstance(cause, UnicodeDecodeError):
                stop = self._not_the_api()
            elif isinstance(cause, HTTPError):
                stop = NoAnswer(
                    f"{self.where} can't be reached to {doing} "
                    f"({str(cause).rpartition(': ')[2].strip(chr(39) + ').')}). Check KFP_HOST, "
                    "and whether the way there is open (VPN, kubectl port-forward)."
                )
            else:
                raise
            # The server's headers are in the original error, and may hold a session's cookie.
            raise stop from None

    def find_pipeline(self, name: str) -> str | None:
        """The id of the pipeline of this name, if it is there."""
        asked = {"filter": _matching("name", name), **self._mine}
        listed = self.ask("look up the pipeline", self.client.list_pipelines, **asked).pipelines
        return next((one.pipeline_id for one in listed or [] if one.display_name == name), None)

    def make_pipeline(self, name: str) -> str:
        """Makes a pipeline without versions: an upload would name the first after the pipeline."""
        from kfp_server_api import V2beta1Pipeline

        body = V2beta1Pipeline(display_name=name, **self._mine)
        create = self.client._pipelines_api.pipeline_service_create_pipeline
        return str(self.ask(f"make the pipeline '{name}'", create, pipeline=body).pipeline_id)

    def find_version(self, pipeline_id: str, digest: str) -> str | None:
        """The id of the newest version of a pipeline with this content, if it is there."""
        asked = {"page_size": 100, "sort_by": "created_at desc", "page_token": ""}
        while True:
            doing, listing = "look up the pipeline's versions", self.client.list_pipeline_versions
            page = self.ask(doing, listing, pipeline_id, **asked)
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
        listed = self.ask("look up the run", list_runs, sort_by="created_at asc", **asked).runs
        for one in listed or []:
            reference = one.pipeline_version_reference
            if one.display_name == name and reference and reference.pipeline_id == pipeline_id:
                return str(one.run_id)
        return None

    def start_run(self, name: str, experiment: str, **what: Any) -> str:
        """Starts a run, in an experiment that is made if need be, and returns its id.

        Caching isn't mentioned: `enable_caching` would override what each task says.
        """
        made, run = self.experiment(experiment), self.client.run_pipeline
        try:
            return str(self.ask("create the run", run, made, name, **what).run_id)
        except NoAnswer as stop:
            text = f"{stop} Before you submit again, look whether the run began all the same."
            raise NoAnswer(text) from None

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if need be."""
        create = self.client.create_experiment
        return str(self.ask(f"make the experiment '{name}'", create, name).experiment_id)

    def _refused(self, error: Any, doing: str) -> PipelineStop:
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
        if error.status in (429, 500, 502, 503, 504):
            return NoAnswer(f"{self.where} could not {doing}{said}. Try again in a while.")
        advice = {
            401: f" Credentials given: {self.credentials}. Set {_CREDENTIALS}.",
            403: f" Set KFP_NAMESPACE (now: {self.namespace or 'not set'}) to one of yours.",
        }
        return PipelineStop(f"{self.where} refused to {doing}{said}.{advice.get(error.status, '')}")

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
