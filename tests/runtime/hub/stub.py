"""A small server of the Hub's API on 127.0.0.1: enough for huggingface_hub to create, commit, list and download."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40
Repositories = dict[str, dict[str, bytes]]


class Handler(BaseHTTPRequestHandler):
    """One repository is a dict of files; large files come by the LFS protocol."""

    repositories: Repositories
    uploaded: dict[str, bytes]
    refused: bool = False

    def log_message(self, *arguments: object) -> None:
        """No log."""

    def answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self) -> bytes:
        if "chunked" not in (self.headers["Transfer-Encoding"] or ""):
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").split("/revision/")[0]
            files = self.repositories.get(name)
            if files is None:
                return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            siblings = [{"rfilename": key, "size": len(value)} for key, value in files.items()]
            return self.answer(200, {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []})
        name, _, rest = path[1:].partition("/resolve/")
        content = self.repositories[name][rest.partition("/")[2]]
        etag = hashlib.sha256(content).hexdigest()
        return self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    def do_PUT(self) -> None:
        content = self.read_body()
        self.uploaded[hashlib.sha256(content).hexdigest()] = content
        self.answer(200)

    def do_POST(self) -> None:
        body, path = self.read_body(), self.path
        if self.refused:
            return self.answer(403, {"error": "this token may not write"})
        host = f"http://{self.headers['Host']}"
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}" if request.get("organization") else request["name"]
            self.repositories.setdefault(name, {})
            return self.answer(200, {"url": f"{host}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": self.mode(f["path"]), "shouldIgnore": False} for f in files]
            return self.answer(200, {"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{host}/upload/{o['oid']}"}}} for o in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        assert "/commit/" in path, path
        name = path.removeprefix("/api/models/").split("/commit/")[0]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.repositories[name][value["path"]] = self.uploaded[value["oid"]]
        return self.answer(200, {"commitUrl": f"{host}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    @staticmethod
    def mode(path: str) -> str:
        return "lfs" if path.endswith((".onnx", ".safetensors")) else "regular"


@contextmanager
def run_stub() -> Iterator[tuple[str, type[Handler]]]:
    """The address of a server, and its handler class with `repositories` ("ORG/NAME" -> files) and `refused`."""
    handler: type[Handler] = type("Stub", (Handler,), {"repositories": {}, "uploaded": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
