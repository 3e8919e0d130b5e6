"""The hub: a real server on this machine that speaks its protocol, and what is said where it refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import python

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(llama2: Path) -> Iterator[str]:
    """A server that speaks the hub's protocol: one open model, one gated, nothing else."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if "some/gated" in path and "/resolve/" in path:
                return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
            if "revision/absent" in path:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if "some/open" not in path and "some/gated" not in path:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            names = sorted(file.name for file in llama2.iterdir())
            if "/tree/" in path:
                tree = [
                    {"type": "file", "path": name, "size": (llama2 / name).stat().st_size, "oid": name}
                    for name in names
                ]
                return self.answer(200, json.dumps(tree).encode(), {})
            if path.startswith("/api/models/"):
                facts = {"id": "some/open", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                return self.answer(200, json.dumps(facts).encode(), {})
            body = (llama2 / path.rsplit("/", 1)[1]).read_bytes()
            return self.answer(200, body, {"ETag": f'"{path[-9:]}{len(body)}"', "X-Repo-Commit": COMMIT})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LOAD = """
import json, sys, time
from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
for hub_id, revision in json.loads(sys.argv[1]):
    start = time.perf_counter()
    try:
        said = load_model(ModelSpec(name="x", hub_id=hub_id, revision=revision, device="cpu")).provenance
    except UserError as error:
        said = str(error)
    print(json.dumps([said, time.perf_counter() - start]))
"""


def load_from(endpoint: str, home: Path, *asked: tuple[str, str | None]) -> list[tuple[object, float]]:
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "", "NO_PROXY": "*"}
    done = python("-c", LOAD, json.dumps(asked), **hub)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_the_hub(hub: str, tmp_path: Path) -> None:
    asked = [
        ("some/open", None),
        ("some/open", "absent"),
        ("some/gated", None),
        ("some/nothing", None),
        ("a/b/c", None),
    ]
    loaded, *refused = [said for said, _ in load_from(hub, tmp_path, *asked)]
    assert isinstance(loaded, dict), loaded
    assert loaded["revision"] == COMMIT
    words = (["absent", "model.revision"], ["licence", "HF_TOKEN", "some/gated"], ["some/nothing"], ["OWNER/NAME"])
    for said, wanted in zip(refused, words, strict=True):
        assert isinstance(said, str)
        assert "\n" not in said
        assert all(word in said for word in wanted), said

    # without the hub: what was downloaded still loads, the rest is one line, and neither takes long
    (cached, _), (unreachable, seconds) = load_from("http://127.0.0.1:1", tmp_path, asked[0], asked[3])
    assert cached == loaded
    assert "some/nothing: can't reach the hub" in str(unreachable)
    assert seconds < 20
