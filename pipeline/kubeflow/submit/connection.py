"""How the installation is reached: read from the environment, without asking anybody yet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from components.errors import PipelineStop

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
"""Where kfp.Client looks from inside a pod."""
IN_CLUSTER_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
"""Where kfp.Client looks for a pod's token; `KF_PIPELINES_SA_TOKEN_PATH` names another file."""
_TRUTH = {"": True, "true": True, "1": True, "false": False, "0": False}
_KUBE_CONFIG_HAS = ("KFP_TOKEN", "KFP_TOKEN_FILE", "KFP_COOKIES", "KFP_CA_CERT", "KFP_VERIFY_SSL")
_SHORTEST_SECRET = 8
"""Other cookies, as `lang=en`, occur in ordinary words."""


@dataclass(frozen=True)
class Connection:
    """Where the API is, and as whom it is asked.

    Attributes:
      host: The API's address, without a slash at its end; None: through kube-config.
      namespace: Whose resources, in an installation for several users.
      token: Sent as `Authorization: Bearer …`.
      token_file: Read anew for each request, since a mounted token is replaced now and then.
      cookies: Sent as they are, e.g. `authservice_session=…`.
      ca_cert: The authority that signed the server's certificate, a PEM file.
      verify_ssl: Whether the server's certificate is checked.
      kube_config: kubectl's files, as in `KUBECONFIG`.
      kube_context: A context of theirs; None: the current one.
    """

    host: str | None
    namespace: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    cookies: str | None = field(default=None, repr=False)
    ca_cert: str | None = None
    verify_ssl: bool = True
    kube_config: str | None = None
    kube_context: str | None = None

    @property
    def where(self) -> str:
        """The installation, for messages."""
        if self.host:
            return self.host
        context = f" (context {self.kube_context})" if self.kube_context else ""
        return f"the cluster of {self.kube_config}{context}"

    @property
    def credentials(self) -> str:
        """The kinds of credentials, never their values."""
        kinds = {
            "a token": self.token,
            f"the token in {self.token_file}": self.token_file,
            "cookies": self.cookies,
            "those of kube-config": self.kube_config,
        }
        return " and ".join(kind for kind, given in kinds.items() if given) or "none"

    def ui(self, path: str) -> str:
        """A page of the UI: its path, after the host's address if that is known."""
        return f"{self.host or ''}/#{path}"

    def hide(self, text: str) -> str:
        """The text without any secret that a server may have put into its answer."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    def _secrets(self) -> Iterator[str]:
        if self.token:
            yield self.token
        if self.token_file:
            yield from filter(None, [_content(self.token_file)])
        for cookie in filter(None, (self.cookies or "").split(";")):
            yield cookie.partition("=")[2].strip() or cookie.strip()


def read(environment: Mapping[str, str]) -> Connection:
    """The connection that the variables describe.

    Args:
        environment: `KFP_HOST`, or `KUBECONFIG` or `KFP_KUBE_CONTEXT`, or a pod's own variables;
            `KFP_NAMESPACE`, `KFP_TOKEN` or `KFP_TOKEN_FILE`, `KFP_COOKIES`, `KFP_CA_CERT`,
            `KFP_VERIFY_SSL`.

    Raises:
        PipelineStop: For everything that is wrong, in one message.
    """
    if problems := list(_problems(environment)):
        raise PipelineStop("\n".join(problems))
    if _by_kube_config(environment):
        return Connection(
            None,
            environment.get("KFP_NAMESPACE") or None,
            kube_config=environment.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"),
            kube_context=environment.get("KFP_KUBE_CONTEXT") or None,
        )
    return Connection(
        _host(environment) or IN_CLUSTER,
        environment.get("KFP_NAMESPACE") or None,
        environment.get("KFP_TOKEN", "").strip() or None,
        environment.get("KFP_TOKEN_FILE") or _mounted_token(environment),
        environment.get("KFP_COOKIES", "").strip() or None,
        environment.get("KFP_CA_CERT") or None,
        _TRUTH[environment.get("KFP_VERIFY_SSL", "").lower()],
    )


def _host(environment: Mapping[str, str]) -> str:
    """Without what follows a `#`: people copy the address of a page of the UI."""
    return environment.get("KFP_HOST", "").strip().partition("#")[0].rstrip("/")


def _by_kube_config(environment: Mapping[str, str]) -> bool:
    named = environment.get("KUBECONFIG") or environment.get("KFP_KUBE_CONTEXT")
    return bool(named) and not _host(environment)


def _mounted_token(environment: Mapping[str, str]) -> str | None:
    given = environment.get("KFP_TOKEN") or environment.get("KFP_COOKIES")
    if given or _host(environment):
        return None
    path = environment.get("KF_PIPELINES_SA_TOKEN_PATH") or IN_CLUSTER_TOKEN
    return path if Path(path).is_file() else None


def _problems(environment: Mapping[str, str]) -> Iterator[str]:
    yield from _host_problems(environment)
    if environment.get("KFP_TOKEN") and environment.get("KFP_TOKEN_FILE"):
        yield "KFP_TOKEN and KFP_TOKEN_FILE are both set: keep one."
    file = environment.get("KFP_TOKEN_FILE")
    token = _content(file) if file else "-"
    if not (token and token.isascii() and token.isprintable()):
        yield f"KFP_TOKEN_FILE is {file}, where no token can be read."
    for name in ("KFP_TOKEN", "KFP_COOKIES"):
        given = environment.get(name, "").strip()
        if not (given.isascii() and given.isprintable()):
            yield f"{name} has a line break or a character in it that no HTTP header can have."
    certificate = environment.get("KFP_CA_CERT")
    if certificate and not Path(certificate).is_file():
        yield f"KFP_CA_CERT is {certificate}, which is no file: name the authority's PEM file."
    if (given := environment.get("KFP_VERIFY_SSL", "")).lower() not in _TRUTH:
        yield f"KFP_VERIFY_SSL is '{given}': it may be true or false."


def _host_problems(environment: Mapping[str, str]) -> Iterator[str]:
    host = _host(environment)
    if _by_kube_config(environment):
        if useless := [name for name in _KUBE_CONFIG_HAS if environment.get(name)]:
            yield (
                f"{', '.join(useless)} can't be used with kube-config, which has its own "
                "credentials: unset it, or set KFP_HOST."
            )
    elif not host and "KUBERNETES_SERVICE_HOST" not in environment:
        yield (
            "No Kubeflow Pipelines to submit to: set KFP_HOST to its address, e.g. "
            "KFP_HOST=https://kubeflow.example.com/pipeline, or KFP_KUBE_CONTEXT to a context of "
            "kubectl's."
        )
    elif host:
        yield from _address_problems(host)


def _address_problems(host: str) -> Iterator[str]:
    try:
        parts = urlsplit(host)
    except ValueError:
        yield f"KFP_HOST is '{host}', which is no address."
        return
    if "@" in parts.netloc:
        yield "KFP_HOST has a user or password in it: use KFP_TOKEN or KFP_COOKIES for that."
    elif parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"KFP_HOST is '{host}': it begins with http:// or https://, and has a host."


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
