"""The calls to Label Studio, what is said when they fail, and the interface of a project."""

from typing import Any

import pytest

pytest.importorskip("httpx", reason="needs the extra label-studio")
import httpx
from studio_replay import RECORDED, TOKEN, Replay

from bbald_jax.labelling.label_studio import client as calls
from bbald_jax.labelling.label_studio.client import LabelStudio, ServerAwayError
from bbald_jax.labelling.label_studio.control import (
    Control,
    check_control,
    project_settings,
    read_control,
)

URL = "http://127.0.0.1:8080"


def connect(server: httpx.BaseTransport, token: str = TOKEN) -> LabelStudio:
    return LabelStudio(URL, token, transport=server)


def make_project(server: Replay) -> LabelStudio:
    client = connect(server)
    client.create_project(project_settings("Cats", "", ["cat", "dog"], "text"))
    return client


def test_both_kinds_of_token_will_do_and_a_short_one_is_renewed():
    server = Replay()
    make_project(server)
    client = connect(server, "my.personal.token")
    assert client.project(1)["title"] == "Cats"
    assert server.calls[1:] == ["POST /api/token/refresh", "GET /api/projects/1"]
    client._authorization = "Bearer of.five.minutes"
    assert [each["title"] for each in client.projects()] == ["Cats"]
    assert server.calls[4:] == ["POST /api/token/refresh", "GET /api/projects"]
    for wrong in ("b" * 40, "not.my.token"):
        with pytest.raises(ValueError, match=r"the token is refused .401.*Account & Settings"):
            connect(server, wrong).project(1)


def test_tasks_are_listed_past_the_size_of_an_answer(monkeypatch: pytest.MonkeyPatch):
    server = Replay()
    client = make_project(server)
    monkeypatch.setattr(calls, "_PAGE", 3)
    assert client.tasks(1)[0] == []
    given = [{"data": {"text": "a"}, "meta": {"bbald": i, "session": "k"}} for i in range(6)]
    numbers = client.import_tasks(1, given)
    calls_before = len(server.calls)
    found, since = client.tasks(1)
    assert [task["id"] for task in found] == numbers
    assert len(server.calls) == calls_before + 2, "one answer too many"
    assert since is not None
    assert since <= server.now - 9
    server.now += 100
    server.label(numbers[4], "cat")
    found, _ = client.tasks(1, server.now - 20)
    assert [task["id"] for task in found] == [numbers[4]]


def test_projects_past_the_end_are_the_end():
    def answer(request: httpx.Request) -> httpx.Response:
        name = "projects past the end" if request.url.params["page"] == "2" else "projects"
        body = RECORDED[name]["body"]
        if name == "projects":
            body = {**body, "next": f"{URL}/api/projects/?page=2"}
        return httpx.Response(RECORDED[name]["status"], json=body)

    assert len(list(connect(httpx.MockTransport(answer)).projects())) == 1


def test_deleting_twice_is_no_error():
    server = Replay()
    client = make_project(server)
    (number,) = client.import_tasks(1, [{"data": {}, "meta": {"bbald": 0, "session": "k"}}])
    client.delete_task(number)
    client.delete_task(number)
    assert not server.tasks


def always(status: int = 200, **content: Any) -> LabelStudio:
    return connect(httpx.MockTransport(lambda _: httpx.Response(status, **content)))


def test_trouble_is_told_from_refusals():
    def raises(error: Exception) -> LabelStudio:
        def answer(_: httpx.Request) -> httpx.Response:
            raise error

        return connect(httpx.MockTransport(answer))

    for client in (
        always(500, json={"detail": "broken"}),
        always(502, text="<html>"),
        always(429),
        raises(httpx.ReadTimeout("slow")),
        raises(httpx.ConnectError("refused")),
    ):
        with pytest.raises(ServerAwayError, match=URL) as error:
            client.project(1)
        assert TOKEN not in str(error.value)
    with pytest.raises(ValueError, match="no project 999 there that this token may see"):
        make_project(Replay()).project(999)
    with pytest.raises(ValueError, match="leads to 'https://x/'; give that as --url"):
        always(301, headers={"Location": "https://x/"}).project(1)
    for other in (always(text="<html>"), always(json=[1])):
        with pytest.raises(ValueError, match="none of Label Studio's"):
            other.project(1)
    with pytest.raises(ValueError, match=r"title: .*at least 3 characters"):
        connect(Replay()).create_project({"title": "x"})


def test_addresses_and_tokens_that_cannot_be():
    for url in ("localhost:8080", "ftp://a", "http://", "http://me:secret@a", "http://a:b"):
        with pytest.raises(ValueError, match="--url: no address") as error:
            LabelStudio(url, TOKEN)
        assert "secret" not in str(error.value)
    for token in ("", " ", "a b", "ä"):
        with pytest.raises(ValueError, match="--token: empty, or no token"):
            LabelStudio(URL, token)
    assert not LabelStudio(URL + "/", TOKEN).is_readable_by_others
    assert LabelStudio("http://studio.example.com", TOKEN).is_readable_by_others
    assert not LabelStudio("https://studio.example.com", TOKEN).is_readable_by_others


def test_a_new_project_has_the_interface_that_is_wanted():
    names = ['a "b"', "<c>", "d&e"]
    for kind, tag in (("image", "Image"), ("text", "Text")):
        settings = project_settings("Cats", "why", names, kind)
        control = read_control(settings["label_config"])
        assert control == Control("class", tuple(names), tag, kind)
        check_control(control, names, kind)
    with pytest.raises(ValueError, match="--create: a title has 3 to 50 characters, not 2"):
        project_settings("ab", "", names, "text")
    with pytest.raises(ValueError, match=r"--classes: 'a.nb' has characters"):
        project_settings("abc", "", ["a\nb"], "text")


VIEW = '<View><Text name="t" value="$text"/>{}</View>'
CHOICES = '<Choices name="c" toName="t">{}</Choices>'
CAT = CHOICES.format('<Choice value="Katze" alias="cat"/>')


def test_other_controls_may_stand_beside_the_classes():
    control = read_control(VIEW.format(f'{CAT}<TextArea name="why" toName="t"/>'))
    assert control == Control("c", ("cat",), "Text", "text")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("<View>", "no XML"),
        (VIEW.format(""), "0 <Choices> controls; leave one there"),
        (VIEW.format(CAT + CAT), "2 <Choices> controls; leave one there"),
        (VIEW.format(CAT.replace("toName", 'choice="multiple" toName')), 'make it choice="single"'),
        (VIEW.format(CHOICES.format("")), 'no <Choice value="...">'),
        (VIEW.format(CAT.replace('"t"', '"u"')), 'toName="u" of <Choices> names no tag'),
        (VIEW.format(CAT).replace("$text", "hello"), "names no tag with a"),
        (VIEW.format(CAT).replace("<Text", '<Text valueType="url"'), 'make it valueType="text"'),
    ],
)
def test_an_interface_without_classes_is_refused_with_the_fix(config: str, message: str):
    with pytest.raises(ValueError, match=r"^the project's labelling interface: ") as error:
        read_control(config)
    assert message in str(error.value)


def test_other_classes_or_items_are_refused_with_the_fix():
    control = Control("c", ("cat", "dog"), "Text", "text")
    check_control(control, ["dog", "cat"], "text")
    with pytest.raises(ValueError, match=r"lacks the classes a&b; write <Choice value=.a&amp;b./>"):
        check_control(control, ["cat", "dog", "a&b"])
    with pytest.raises(ValueError, match=r"has the choices dog, .* add them with --classes dog"):
        check_control(control, ["cat"])
    with pytest.raises(ValueError, match="shows <Text>, but the items are images; put <Image"):
        check_control(control, ["cat", "dog"], "image")
