"""Requests as attackers make them, against the guard in front of a small app."""

import asyncio
from urllib.parse import unquote

import pytest

pytest.importorskip("gradio")

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from turpentine.ui.guard import LARGEST_BODY, Guard


async def echo(request):
    return PlainTextResponse(f"{request.method} {len(await request.body())}")


@pytest.fixture
def client():
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE"])])
    return TestClient(Guard(app), base_url="http://127.0.0.1:7860")


JOIN = "/gradio_api/queue/join"


def status_of(path, method):
    """Status of a request whose path goes through no client, as those put `..` and `//` in order before they send."""
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    headers = [(b"host", b"127.0.0.1:7860")]
    scope = {"type": "http", "method": method, "path": unquote(path), "query_string": b"", "headers": headers}
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app)(scope, receive, send))
    return sent[0]["status"]


def test_the_page_and_its_calls_pass(client):
    for path in (
        "/",
        "/config",
        "/gradio_api/info",
        "/assets/index-abc.js",
        "/gradio_api/queue/data",
        "/gradio_api/file=/tmp/a b.png",
    ):
        assert client.get(path).status_code == 200, path
    sent = client.post(
        JOIN,
        json={"data": ["http://in.a.text", {"path": "/tmp/gradio/a.csv"}]},
        headers={"origin": "http://127.0.0.1:7860"},
    )
    assert sent.status_code == 200 and sent.text != "POST 0"
    assert "frame-ancestors 'none'" in client.get("/").headers["content-security-policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "169.254.1.1", "", "[::2]:7860"]
)
def test_other_hosts_are_refused(client, host):
    """DNS rebinding: the address is ours, the name is theirs."""
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860"])
def test_loopback_names_pass(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:7861"},
        {"origin": "http://localhost:7860"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_can_not_post(client, headers):
    assert client.post(JOIN, json={}, headers=headers).status_code == 403
    assert client.get("/gradio_api/info", headers=headers).status_code == 403


def test_a_link_from_another_site_opens_the_page(client):
    assert client.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://169.254.169.254/latest",
        "/gradio_api/file=HTTPS://x",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/proxy=https://x.hf.space/a",
        "/gradio_api/vibe-code",
        "/monitoring",
        "/gradio_api/deep_link",
        "/docs",
        "/gradio_api/run-history/records",
        "/openapi.json",
        "/gradio_api/stream/x",
        "/gradio_api/mcp",
        "/assets/../config.py",
        "/assets/%2e%2e/x",
        "/gradio_api/file=/tmp/../etc/passwd",
        "/gradio_api/process_recording",
        "//evil",
        "/anything",
    ],
)
def test_everything_else_is_not_there(path):
    assert status_of("/", "GET") == 200
    assert status_of(path, "GET") == 404
    assert status_of(path, "POST") == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(client, method):
    assert client.request(method, "/").status_code == 405


@pytest.mark.parametrize(
    "data",
    [
        {"path": "http://169.254.169.254/", "meta": {"_type": "gradio.FileData"}},
        [[{"deep": {"path": " HTTPS://x/y"}}]],
        {"path": "file:///etc/passwd"},
        {"path": "gopher://x"},
    ],
)
def test_files_by_address_are_refused(client, data):
    assert client.post(JOIN, json={"data": [data]}).status_code == 403


def test_large_and_deep_bodies_are_refused(client):
    assert client.post(JOIN, content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    deep = b"[" * 100_000 + b"]" * 100_000
    assert client.post(JOIN, content=deep).status_code in (200, 403)


def test_addresses_pass_where_the_app_listens():
    app = Starlette(routes=[Route("/", echo)])
    client = TestClient(Guard(app, hosts=["studio.local"], any_address=True), base_url="http://studio.local")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "192.168.1.7:7860"}).status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
