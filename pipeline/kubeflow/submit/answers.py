"""What goes wrong between here and the API, in a sentence each."""

import json
from urllib.parse import urljoin, urlsplit

from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError, LocationValueError, ProtocolError

from components.errors import PipelineStop
from pipeline.kubeflow.submit.connection import Connection

_LATER = {429, 500, 502, 503, 504}
_LONGEST = 600
"""Characters of the server's own words: its internal errors come with whole stack traces."""
_NAMES = "KFP_TOKEN, KFP_TOKEN_FILE or KFP_COOKIES to what lets you in"


class NoAnswer(PipelineStop):
    """Nobody answered, or the answer was 'later': the same request may work in a while.

    Attributes:
      what: What happened, without the advice.
    """

    def __init__(self, what: str, advice: str):
        """Takes what happened, and what to do about it."""
        super().__init__(f"{what} {advice}")
        self.what = what


def explain(error: Exception, doing: str, connection: Connection) -> PipelineStop | None:
    """The sentence for a failed request; None for a fault of the code.

    Args:
        error: What kfp_server_api raised.
        doing: What the request was for, e.g. `create the run`.
        connection: Whom it went to.
    """
    if isinstance(error.__context__, ApiException):
        # kfp_server_api trips over TLS errors, which have no body, and pages that aren't UTF-8.
        error = error.__context__
    if isinstance(error, ApiException):
        return _refused(error, doing, connection) if error.status else _tls(error, connection)
    if isinstance(error, UnicodeDecodeError):
        return not_the_api(connection)
    if isinstance(error, LocationValueError):
        return PipelineStop(f"KFP_HOST is '{connection.where}', which is no address.")
    if isinstance(error, HTTPError):
        reason = error.args[-1] if isinstance(error, ProtocolError) else error
        text = str(reason).rpartition(": ")[2].rstrip(".")
        return NoAnswer(
            f"{connection.where} can't be reached to {doing} ({text}).",
            "Check KFP_HOST, and whether the way there is open (VPN, kubectl port-forward).",
        )
    if isinstance(error, OSError):
        return PipelineStop(f"The token can't be read: {error}. Check KFP_TOKEN_FILE.")
    return None


def not_the_api(connection: Connection) -> PipelineStop:
    """The sentence for an answer that isn't JSON, such as a login page."""
    return PipelineStop(
        f"{connection.where} answers, but not as the Kubeflow Pipelines API does (a login page?): "
        f"set KFP_HOST to the address that has /apis/v2beta1 below it, and {_NAMES}."
    )


def _tls(error: ApiException, connection: Connection) -> PipelineStop:
    reason = str(error.reason).partition("\n")[2].partition(" (_ssl")[0]
    text = reason.rpartition("] ")[2] or reason
    if "mismatch" in text:
        return PipelineStop(
            f"The certificate of {connection.where} is for another name ({text}): set KFP_HOST to "
            "the name in the certificate."
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return PipelineStop(
            f"The certificate of {connection.where} can't be verified ({text}): set KFP_CA_CERT to "
            "the PEM file of the authority that signed it."
        )
    return PipelineStop(
        f"No TLS connection with {connection.where} ({text}): check KFP_CA_CERT, and whether the "
        "address begins with http:// rather than https://."
    )


def _refused(error: ApiException, doing: str, connection: Connection) -> PipelineStop:
    where, words = connection.where, connection.hide(_words(error))
    said = f" ({error.status}: {words})" if words else f" ({error.status})"
    if 300 <= error.status < 400:
        return _redirected(error, connection)
    if error.status == 401:
        return PipelineStop(
            f"{where} wants to know who asks{said}; credentials given: {connection.credentials}. "
            f"Set {_NAMES}; a token may have expired."
        )
    if error.status == 403:
        return PipelineStop(
            f"{where} doesn't let you {doing}{said}. Set KFP_NAMESPACE (now: "
            f"{connection.namespace or 'not set'}) to a namespace of yours, or ask for the right."
        )
    if error.status == 404 and not words:
        return not_the_api(connection)
    if error.status in _LATER:
        return NoAnswer(
            f"{where} could not {doing}{said}.",
            "Try again in a while; if it says the same, the package or the installation is at "
            "fault.",
        )
    return PipelineStop(f"{where} refused to {doing}{said}.")


def _redirected(error: ApiException, connection: Connection) -> PipelineStop:
    """Without the query of where to: a login's has secrets."""
    location = (error.headers or {}).get("location", "")
    to = urlsplit(urljoin(f"{connection.host}/", location))
    return PipelineStop(
        f"{connection.where} sends us to {to.scheme}://{to.hostname}{to.path} instead of answering "
        f"({error.status}): set KFP_HOST to the API's own address, and {_NAMES}."
    )


def _words(error: ApiException) -> str:
    """The server's own words: its JSON's message, or plain text; nothing of a page for people."""
    body = error.body or ""
    text = body if isinstance(body, str) else body.decode(errors="replace")
    try:
        found = json.loads(text)
        text = found.get("message") or found.get("error_message") or found.get("error") or ""
    except (ValueError, AttributeError):
        if "text/plain" not in (error.headers or {}).get("content-type", ""):
            return ""
    return str(text).strip().partition("\n")[0][:_LONGEST].rstrip(".")
