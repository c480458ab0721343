"""Why a request to the server failed, in words for the client's user: each cause has a sentence of its own."""

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from common.network import describe_proxy
from fedlmg_client.compat import CLOCK_MAY_BE_OFF, KEY_NEEDED, NOT_ACTIVATED, RUN_HAS_ENDED, read_error_code

EXPIRED, NOT_YET_VALID, OTHER_HOST, OTHER_ADDRESS = 10, 9, 62, 64
UNKNOWN_AUTHORITY = (18, 19, 20, 21)
"""OpenSSL's codes of certificates that are not verified (`X509_V_ERR_...`)."""
NAME_NOT_FOUND = ("Name or service not known", "nodename nor servname", "getaddrinfo failed", "name resolution")
ASK_THE_OPERATOR = "ask the server's operator"


def explain_transport_error(error: httpx.TransportError) -> str:
    """Why a request got no answer."""
    host = _host_of(error)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _explain_certificate(cause, host)
    text = " ".join(str(cause) for cause in causes)
    if isinstance(error, httpx.ProxyError):
        return (
            f"the proxy of this machine does not let it reach {host} ({error}): ask those who run the proxy, or name "
            "the host in the environment variable NO_PROXY if no proxy is needed"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"what answers at {host} does not speak TLS ({error}): correct HOST and port"
    if any(words in text for words in NAME_NOT_FOUND):
        return f"no address is known for {host.rpartition(':')[0] or host}: correct HOST, or connect to the network"
    if "refused" in text:
        return f"the server cannot be reached: nothing listens at {host}"
    if isinstance(error, httpx.TimeoutException):
        return f"the server cannot be reached: {host} does not answer in time"
    return "the server cannot be reached"


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    code, reason = error.verify_code, error.verify_message
    clock = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if code == EXPIRED:
        return (
            f"the server's certificate has expired, if it is {clock} as this machine's clock says: correct the clock, "
            "or ask the server's operator to run `fedlmg server renew`"
        )
    if code == NOT_YET_VALID:
        return f"the server's certificate is not valid yet, if it is {clock} as this machine's clock says: correct it"
    if code in (OTHER_HOST, OTHER_ADDRESS):
        return (
            f"the server's certificate is not for {host}, but for another name or address: join with the HOST that the "
            "operator gave you, or ask for `fedlmg server renew --host`"
        )
    if code in UNKNOWN_AUTHORITY:
        return (
            "the server's certificate is not signed by the authority of the `--ca` file, or none was given: "
            f"{ASK_THE_OPERATOR} for the current ca.crt, or whether a proxy on the way replaces certificates"
        )
    return f"the server's certificate cannot be verified ({reason}): {ASK_THE_OPERATOR}"


def explain_answer(answer: httpx.Response) -> str:
    """What an answer with an HTTP status of 400 or above means; empty if it is part of an ordinary round."""
    status, code = answer.status_code, read_error_code(answer.text)
    if code in RUN_HAS_ENDED:
        return ""
    if code == KEY_NEEDED:
        return "the server takes clients with registered keys only: join with --key and --name"
    if code == NOT_ACTIVATED:
        return (
            "the server does not accept this client: either an earlier connection has not timed out yet, which takes a "
            "minute, or the server's operator has not registered this client's key"
        )
    if status == httpx.codes.UNAUTHORIZED:
        return _explain_unauthorised(answer)
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return "the proxy of this machine asks for a user name and password: set them in HTTP_PROXY or HTTPS_PROXY"
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return f"the server is busy (HTTP {status})"
    if "plain HTTP request was sent to HTTPS port" in answer.text:
        return "the server speaks TLS: leave out --insecure, and give --ca and --key"
    if code is None:
        return (
            f"what answers at {_place(answer.request.url)} is not a FedLMG server, or does not let this client in "
            f"(HTTP {status}): correct HOST and port"
        )
    return f"the server rejects this client (HTTP {status}, code {code}): {ASK_THE_OPERATOR}"


def _explain_unauthorised(answer: httpx.Response) -> str:
    """What a node signs holds for minutes only: a clock that is wrong looks to the server like a wrong key."""
    behind = measure_clock(answer)
    if behind is not None and not CLOCK_MAY_BE_OFF[0] < behind < CLOCK_MAY_BE_OFF[1]:
        off = f"{abs(behind) / 60:.0f} minutes" if abs(behind) >= 120 else f"{abs(behind):.0f} seconds"
        return (
            f"this machine's clock is {off} {'behind' if behind > 0 else 'ahead of'} the server's, so it rejects "
            "what this client signs (HTTP 401): correct the clock that is wrong; the key is not to blame"
        )
    return f"the server rejects this client (HTTP 401): {ASK_THE_OPERATOR} whether this client's key is registered"


def measure_clock(answer: httpx.Response) -> float | None:
    """Seconds by which this machine's clock is behind that of the server that answered; None if it told no time."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None


def _host_of(error: httpx.TransportError) -> str:
    try:
        return _place(error.request.url)
    except RuntimeError:  # The request is not known.
        return "this address"


def _place(url: httpx.URL) -> str:
    return describe_proxy(url.netloc.decode())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
