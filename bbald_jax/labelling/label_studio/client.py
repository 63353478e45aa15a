"""The calls to a Label Studio server (Community, 1.x), and what is said when they fail."""

import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

#: Seconds to wait for an answer; an import has images to store.
_PATIENCE, _IMPORT_PATIENCE = 30.0, 300.0
#: Tasks, or projects, in one answer.
_PAGE = 200
# Of tasks and of their annotations and drafts: not the images. Servers that do not know the
# parameter send everything.
_FIELDS = "id,meta,annotations,drafts,result,completed_by,was_cancelled,updated_at"
# By so many seconds the clock of a change may be behind that of the answer in which it is seen.
_OVERLAP = 10.0


class ServerAwayError(OSError):
    """No answer, or one that says that the server has trouble: to be tried again."""


class LabelStudio:
    """One server, with one person's token.

    Tokens of both kinds will do: a legacy token is sent as it is, a personal one fetches another
    that is valid for minutes, again whenever that has run out.
    """

    def __init__(
        self, url: str, token: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        """Nothing is called yet.

        Args:
          url: where people open it, such as http://localhost:8080.
          token: from "Account & Settings"; it is neither kept on disk nor printed.
          transport: another way to the server, for tests.

        Raises:
          ValueError: no such address, or a token with characters that no token has.
        """
        self.url = url.strip().rstrip("/")
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
            raise ValueError(
                "--url: no address; give one such as http://localhost:8080, without a name or "
                "password in it"
            )
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(
                "--token: empty, or no token; copy it from Label Studio's Account & Settings"
            )
        # A personal token is a JSON Web Token, of three parts.
        self._personal = token if token.count(".") == 2 else None
        self._authorization = "" if self._personal else f"Token {token}"
        self._http = httpx.Client(base_url=self.url, timeout=_PATIENCE, transport=transport)

    @property
    def is_readable_by_others(self) -> bool:
        """Whether the token goes over a network without encryption."""
        here = ("localhost", "127.0.0.1", "::1")
        return httpx.URL(self.url).scheme == "http" and httpx.URL(self.url).host not in here

    def project(self, number: int) -> dict[str, Any]:
        """All there is to know of a project, such as `label_config` and `task_number`."""
        return self._object("GET", f"/api/projects/{number}", what=f"project {number}")

    def projects(self) -> Iterator[dict[str, Any]]:
        """All projects that the token's owner sees: `id`, `title`, `description`."""
        page, following = 1, True
        while following:
            params = {"page": page, "page_size": _PAGE, "include": "id,title,description"}
            response = self._call("GET", "/api/projects", params=params)
            if response.status_code == 404 and page > 1:  # one was deleted meanwhile
                return
            answer = self._check(response)
            yield from answer["results"]
            page, following = page + 1, answer["next"]

    def create_project(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A new project."""
        return self._object("POST", "/api/projects", content=settings)

    def import_tasks(self, project: int, tasks: list[dict[str, Any]]) -> list[int]:
        """Add tasks, in this order; their ids."""
        answer = self._object(
            "POST",
            f"/api/projects/{project}/import",
            params={"return_task_ids": "true"},
            content=tasks,
            timeout=_IMPORT_PATIENCE,
        )
        return answer["task_ids"]

    def delete_task(self, number: int) -> None:
        """Delete a task; one that is not there any more is no error."""
        response = self._call("DELETE", f"/api/tasks/{number}/")
        if response.status_code != 404:
            self._check(response)

    def tasks(
        self, project: int, since: float | None = None
    ) -> tuple[list[dict[str, Any]], float | None]:
        """The tasks of a project, by id, with what people said of them.

        Args:
          project: its number.
          since: only those that have changed since then, in seconds since 1970, by the server's
            clock. What changed by bulk actions of a server with a time zone of its own, or was
            deleted, may be missing then: compare the project's counts.

        Returns:
          The tasks, and the `since` of the next call; None where the server tells no time.
        """
        found: list[dict[str, Any]] = []
        following, last = None, 0
        while True:
            # By the last id instead of a page's number: pages shift when a task is deleted.
            conditions = [_condition("id", "Number", last)]
            if since is not None:
                changed = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(since))
                conditions.append(_condition("updated_at", "Datetime", changed))
            query = {
                "filters": {"conjunction": "and", "items": conditions},
                "ordering": ["tasks:id"],
            }
            params = {
                "project": project,
                "fields": "all",
                "include": _FIELDS,
                "page_size": _PAGE,
                "query": json.dumps(query),
            }
            response = self._call("GET", "/api/tasks", params=params)
            if not last and "date" in response.headers:  # when this was begun
                began = parsedate_to_datetime(response.headers["date"])
                following = began.timestamp() - _OVERLAP
            answer = self._check(response, f"project {project}")
            tasks = answer["tasks"]
            found += tasks
            # `total` counts what this query has; a server may give less at once than it was asked.
            if not tasks or len(tasks) >= answer["total"]:
                return found, following
            last = tasks[-1]["id"]

    def _object(self, method: str, path: str, *, what: str = "", **request: Any) -> dict[str, Any]:
        return self._check(self._call(method, path, **request), what)

    def _call(
        self, method: str, path: str, *, content: Any = None, **request: Any
    ) -> httpx.Response:
        """An answer, whatever it says; a personal token's short one is renewed where it ran out."""
        if content is not None:
            request |= {
                "content": json.dumps(content),
                "headers": {"Content-Type": "application/json"},
            }
        for is_last in (False, True):
            if not self._authorization:
                self._renew()
            headers = {**request.pop("headers", {}), "Authorization": self._authorization}
            response = self._send(method, path, headers=headers, **request)
            if response.status_code != 401 or self._personal is None or is_last:
                break
            self._authorization, request["headers"] = "", headers
        return response

    def _renew(self) -> None:
        token = {"refresh": self._personal}
        answer = self._check(self._send("POST", "/api/token/refresh", json=token))
        self._authorization = f"Bearer {answer['access']}"

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **request)
        except httpx.TimeoutException as error:
            raise ServerAwayError(f"{self.url}: no answer in time ({method} {path})") from error
        except httpx.HTTPError as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise ServerAwayError(f"{self.url}: {what} ({method} {path})") from error

    def _check(self, response: httpx.Response, what: str = "") -> dict[str, Any]:
        """The object that an answer holds.

        Raises:
          ServerAwayError: it says that it is to be asked again.
          ValueError: it refuses; the message says what to do.
        """
        status, call = (
            response.status_code,
            f"{response.request.method} {response.request.url.path}",
        )
        try:
            body = response.json() if response.content else {}
        except ValueError:
            body = None
        said = _detail(body)
        if status >= 500 or status in (408, 425, 429):
            raise ServerAwayError(f"{self.url}: error {status} ({call}) {said}".rstrip())
        if status in (401, 403):
            raise ValueError(
                f"{self.url}: the token is refused ({status}) {said}; copy one from Label Studio's "
                "Account & Settings, of somebody who may edit the project"
            )
        if response.is_redirect:
            raise ValueError(
                f"{self.url}: leads to {response.headers.get('location', '')!r}; give that as --url"
            )
        if status == 404 and what:
            raise ValueError(f"{self.url}: no {what} there that this token may see")
        if response.is_error:
            raise ValueError(f"{self.url}: refused ({status}, {call}): {said}")
        if not isinstance(body, dict):
            raise ValueError(
                f"{self.url}: its answer is none of Label Studio's ({call}); give the address at "
                "which people open it"
            )
        return body


def _condition(field: str, kind: str, value: Any) -> dict[str, Any]:
    name = f"filter:tasks:{field}"
    return {"filter": name, "operator": "greater", "type": kind, "value": value}


def _detail(body: Any) -> str:
    """What an error says of itself, in one line."""
    if not isinstance(body, dict):
        return ""
    said = body.get("validation_errors") or body.get("detail") or ""
    if isinstance(said, dict):
        said = "; ".join(f"{field}: {json.dumps(what)}" for field, what in said.items())
    return " ".join(str(said).split())[:300]
