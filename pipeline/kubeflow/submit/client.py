"""kfp.Client with a time limit for each request, and without a memory of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import kfp_server_api
import kubernetes
import yaml
from kfp import Client as KfpClient  # before its modules: in a step KFP is imported by halves
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from components.errors import PipelineStop
from pipeline.kubeflow.submit import answers
from pipeline.kubeflow.submit.connection import Connection

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_PAGE = 100


class Client(KfpClient):
    """kfp.Client that knows what the connection says, and nothing else.

    kfp.Client itself reads a namespace and cookies from ~/.config/kfp/context.json and writes
    there, takes hosts and accounts from `KF_PIPELINES_*` of the process, asks the server five
    times before it says that there is none, prints links, and waits for an answer for ever. So
    requests go through the generated services below it (`client.runs` and its like) by `call`.
    """

    def __init__(self, connection: Connection):
        """Takes the connection; nothing is sent yet."""
        self.connection = connection
        try:
            super().__init__(cookies=connection.cookies or "")
        except (kubernetes.config.ConfigException, yaml.YAMLError, OSError) as error:
            reason = "it is no YAML" if isinstance(error, yaml.YAMLError) else error
            raise PipelineStop(
                f"kube-config {connection.kube_config} can't be used ({reason}). Check KUBECONFIG "
                "and KFP_KUBE_CONTEXT."
            ) from error

    @property
    def in_namespace(self) -> dict[str, str]:
        """The argument of requests that concern one user's resources."""
        given = self.connection.namespace
        return {"namespace": given} if given else {}

    def _load_context_setting_or_default(self) -> None:
        # With any namespace at all kfp.Client doesn't ask the server for one, to write it down.
        # It is never sent: each request that needs a namespace is given it.
        self._context_setting = {"namespace": "unused"}

    def _load_config(self, *_: object) -> kfp_server_api.Configuration:
        given = self.connection
        if given.host is None:
            config = self._kube_config(given)
        else:
            file = given.token_file
            config = super()._load_config(
                host=given.host,
                client_id=None,
                namespace="kubeflow",
                other_client_id=None,
                other_client_secret=None,
                existing_token=given.token,
                proxy=None,
                ssl_ca_cert=given.ca_cert,
                kube_context=None,
                credentials=ServiceAccountTokenVolumeCredentials(file) if file else None,
                verify_ssl=given.verify_ssl,
            )
        # Neither urllib3's own retries, which would repeat a request that makes something, nor
        # redirects: they lead to login pages.
        config.retries = False
        return config

    def _is_inverse_proxy_host(self, host: str) -> bool:
        # For Google's hosts kfp.Client would take the credentials of gcloud, unasked.
        return False

    def _kube_config(self, given: Connection) -> kfp_server_api.Configuration:
        config = kfp_server_api.Configuration()
        kubernetes.config.load_kube_config(
            given.kube_config, given.kube_context, client_configuration=config
        )
        config.host = f"{config.host.rstrip('/')}/{self._KUBE_PROXY_PATH.format('kubeflow')}"
        config.host = config.host.rstrip("/")
        return config

    def call(
        self,
        doing: str,
        request: Callable[..., Any],
        *values: Any,
        seconds: float = _ANSWER_SECONDS,
        **named: Any,
    ) -> Any:
        """Sends one request, once.

        Args:
            doing: What it is for, as in "can't be reached to {doing}".
            request: A method of one of the services.
            values: Its arguments.
            seconds: How long the answer may take.
            named: Its arguments by name.

        Raises:
            NoAnswer: If it may work later.
            PipelineStop: If it doesn't.
        """
        limits = (min(_CONNECT_SECONDS, seconds), seconds)
        try:
            found = request(*values, **named, _request_timeout=limits)
        except Exception as error:
            if (stop := answers.explain(error, doing, self.connection)) is None:
                raise
            # The server's headers are in the original error, and may hold a session's cookie.
            raise stop from None
        kind = self._run_api.api_client.last_response.getheader("content-type") or ""
        if "json" not in kind:
            raise answers.not_the_api(self.connection)
        return found

    def pages(self, doing: str, request: Callable[..., Any], **named: Any) -> Iterator[Any]:
        """Yields the answers of a request for a list, page by page."""
        token = ""
        while True:
            page = self.call(doing, request, page_size=_PAGE, page_token=token, **named)
            yield page
            if not (token := page.next_page_token or ""):
                return
