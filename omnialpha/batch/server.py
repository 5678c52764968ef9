"""One ComfyUI server over HTTP: each request once, and every way it can go wrong as one of four exceptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

from ..errors import OmniAlphaError
from ..files.writing import write_blocks, writing
from .history import Output, refusal
from .results import Damaged
from .urls import clean_url, origin, public_url

CONNECT, ANSWER, TRANSFER = 10, 60, 600  # seconds: to connect, for an answer, for the answer to an upload
_UNKNOWN = object()
DOWN = {429, 502, 503, 504}  # what proxies say while the server behind them is away or busy


class ServerTrouble(Exception):
    """The server cannot be reached, or answers that it cannot work now. Trying later may help.

    Attributes:
        request: it was this request that failed, not the way to the server (HTTP 500).
    """

    def __init__(self, message: str, request: bool = False):
        super().__init__(message)
        self.request = request


class ServerClosed(Exception):
    """The server is none that we can use: no entry, or no ComfyUI."""


class Refused(Exception):
    """The server understood and said no. `kind` is one of `history.LIMITS`."""

    def __init__(self, message: str, kind: str = "refused"):
        super().__init__(message)
        self.kind = kind


class Queue(NamedTuple):
    """Prompt ids."""

    running: set[str]
    pending: set[str]


class Server:
    """A server's address and how to talk to it. Not for several threads at once.

    Args:
        url: `http://127.0.0.1:8188`, `https://host/path`, with `user:password@` if need be.
        headers: sent with each request, the websocket's too, and to this address alone: what redirects elsewhere is
            not followed.

    Raises:
        OmniAlphaError: no such address, or the packages are missing.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, folder: str = "omnialpha-batch"):
        self.address = clean_url(url)
        self.folder = folder
        self.headers = dict(headers or {})
        self._limit: Any = _UNKNOWN
        self._session = _session()
        self._session.headers.update(self.headers)

    @property
    def name(self) -> str:
        """The address without a password, for messages and the journal."""
        return public_url(self.address)

    def check(self) -> str:
        """The server's version. Raises ServerTrouble, ServerClosed."""
        stats = self._json("GET", "/system_stats")
        if not isinstance(stats, dict) or "system" not in stats:
            raise ServerClosed(f"{self.name} answers, but not as ComfyUI does. Is the address right?")
        return str(stats["system"].get("comfyui_version", "unknown"))

    def largest_upload(self) -> int | None:
        """Bytes that a request may have, where the server says so."""
        if self._limit is _UNKNOWN:
            try:
                self._limit = int(self._json("GET", "/features")["max_upload_size"])
            except (ServerClosed, KeyError, TypeError, ValueError):  # older servers do not say
                self._limit = None
        return self._limit

    def lacking(self, classes: Iterable[str]) -> list[str]:
        """Those classes of nodes that the server does not know."""
        return sorted(name for name in classes if name not in self._json("GET", f"/object_info/{quote(name, safe='')}"))

    def upload(self, path: Path, name: str) -> str:
        """Send a file; what inputs have to call it, which is what the server says it is called.

        Raises:
            Refused: it is too large, or not wanted.
        """
        limit = self.largest_upload()
        if limit is not None and path.stat().st_size + 2000 > limit:  # a form around the file counts too
            raise Refused(self._too_large(path), "too large")
        try:
            with open(path, "rb") as file:
                answer = self._json(
                    "POST",
                    "/upload/image",
                    what=path,
                    files={"image": (name, file, "application/octet-stream")},
                    data={"type": "input", "subfolder": self.folder},
                    timeout=(ANSWER, TRANSFER),
                )
        except ServerTrouble as trouble:
            # Servers and proxies hang up in the middle of a body that is too large for them: then all else is well.
            self.check()
            hint = f"{trouble} It was sent {_with_size(path)}, which may be more than it takes."
            raise ServerTrouble(hint, request=True) from None
        try:
            return f"{answer['subfolder']}/{answer['name']}" if answer.get("subfolder") else answer["name"]
        except (KeyError, TypeError, AttributeError):
            raise ServerTrouble(f"{self.name} answered to an upload with {str(answer)[:200]!r}.", True) from None

    def submit(self, prompt: Mapping[str, Any], prompt_id: str, client_id: str) -> str:
        """Queue a graph under this id; the id it really got (old servers choose their own).

        Raises:
            Refused: the graph, or a branch of it, is invalid. A graph of which only a branch is was queued all the
                same, without it; it is taken from the queue again.
        """
        body = {
            "prompt": prompt,
            "prompt_id": prompt_id,
            "client_id": client_id,
            "extra_data": {"preview_method": "none"},
        }
        answer = self._json("POST", "/prompt", json=body)
        reason = refusal(answer) if isinstance(answer, dict) else None
        if reason:
            if "prompt_id" in answer:
                self.unqueue([str(answer["prompt_id"])])
            raise Refused(reason)
        try:
            return str(answer["prompt_id"])
        except (KeyError, TypeError):
            raise ServerTrouble(f"{self.name} answered to a graph with {str(answer)[:200]!r}.", True) from None

    def queue(self) -> Queue:
        """What runs and what waits."""
        answer = self._json("GET", "/queue")
        try:
            return Queue(*({str(item[1]) for item in answer[f"queue_{key}"]} for key in ("running", "pending")))
        except (KeyError, TypeError, IndexError):
            raise ServerTrouble(f"{self.name} answered for its queue {str(answer)[:200]!r}.", True) from None

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a graph, None where there is none."""
        answer = self._json("GET", f"/history/{prompt_id}")
        return answer.get(prompt_id) if isinstance(answer, dict) else None

    def unqueue(self, prompt_ids: list[str]) -> None:
        """Take graphs that wait out of the queue. One that runs already goes on."""
        self._json("POST", "/queue", json={"delete": prompt_ids})

    def download(self, output: Output, part: Path) -> None:
        """A result into a file, complete and on the disk.

        Raises:
            Damaged: it is not there, or came short.
            DiskError: it cannot be written here.
        """
        if output.text is not None:
            with writing(part):
                write_blocks(part, [output.text.encode()])
            return
        query = {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
        answer = self._request("GET", "/view", params=query, stream=True)
        with answer:
            if answer.status_code != 200:
                raise Damaged(f"The server answered {answer.status_code} for {output.filename}.")
            expected = answer.headers.get("Content-Length") if "Content-Encoding" not in answer.headers else None
            with writing(part):
                size = write_blocks(part, self._blocks(answer))
        if expected is not None and size != int(expected):
            raise Damaged(f"{output.filename} came short: {size} of {expected} bytes.")

    def _blocks(self, answer):
        requests = _requests()
        try:
            yield from answer.iter_content(1 << 18)
        except requests.RequestException as error:
            raise ServerTrouble(f"{self.name}: a download broke off ({_words(error)}).") from error

    def _json(self, method: str, path: str, what: Path | None = None, **options) -> Any:
        answer = self._request(method, path, **options)
        code, text = answer.status_code, answer.text
        if code == 413:
            raise Refused(self._too_large(what), "too large")
        if 400 <= code < 500 and code != 400:
            if method == "GET":
                raise ServerClosed(f"{self.name} answered {code} to {path}: it is no ComfyUI. Is the address right?")
            raise Refused(f"{self.name} answered {code} to {path}: {text[:300]}")
        if not text:
            return {}
        try:
            parsed = answer.json()
        except ValueError:
            if code == 400:
                raise Refused(f"{self.name} answered 400 to {path}: {text[:300]}") from None
            raise ServerClosed(f"{self.name} answers with something that is no JSON: {text[:80]!r}.") from None
        if code == 400:
            reason = refusal(parsed) if isinstance(parsed, dict) else None
            raise Refused(reason or f"{self.name} answered 400 to {path}: {text[:300]}")
        return parsed

    def _too_large(self, what: Path | None) -> str:
        subject = _with_size(what) if what else "The workflow with its values"
        limit = f"{self._limit / 1e6:.1f} MB" if isinstance(self._limit, int) else "100 MB unless told otherwise"
        return (
            f"{subject} is larger than {self.name} takes: {limit}, or less where a proxy before it says so. Start "
            f"ComfyUI with a larger --max-upload-size."
        )

    def _request(self, method: str, path: str, timeout=(CONNECT, ANSWER), **options):
        requests = _requests()
        try:
            answer = self._session.request(method, self.address + path, timeout=timeout, **options)
        except requests.RequestException as error:
            raise ServerTrouble(f"{self.name} does not answer ({_words(error)}).") from error
        code = answer.status_code
        if code in (401, 403, 407):
            raise ServerClosed(f"{self.name} answered {code}: no entry. Give a token: --header 'Authorization: ...'")
        if code >= 500 or code in DOWN:
            raise ServerTrouble(f"{self.name} answered {code} to {path}: {answer.text[:300]}", code not in DOWN)
        return answer


def _session():
    """A requests session that never takes headers, cookies or files to another server than it was sent to."""
    requests = _requests()

    class Session(requests.Session):
        def get_redirect_target(self, resp):
            target = super().get_redirect_target(resp)
            if target is None:
                return None
            try:
                whole = urljoin(resp.url, target)
                same, place = origin(whole) == origin(resp.url), public_url(whole)[:200]
            except ValueError:
                same, place = False, "no address"
            if not same:
                raise ServerClosed(
                    f"{public_url(resp.url)} answered {resp.status_code} and sends us on to another server ({place}). "
                    f"Nothing is sent there unasked. Give that address if it is the one you mean."
                )
            return target

    return Session()


def _with_size(path: Path) -> str:
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"


def _words(error: Exception) -> str:
    """The innermost cause of a chain of network errors."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(error).__name__


def _requests():
    try:
        import requests
    except ImportError:
        raise OmniAlphaError(
            "Batches need requests and websocket-client: pip install -r requirements-batch.txt"
        ) from None
    return requests
