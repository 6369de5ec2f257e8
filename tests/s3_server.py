"""A small S3 on 127.0.0.1: objects in memory, with conditional puts, ranges, listing and multipart uploads.

It speaks as much of the protocol as Delta tables need and checks no signature.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape, unescape

DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


class Bucket(ThreadingHTTPServer):
    """The server and what it holds; several may ask at once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Bucket

    def do_GET(self) -> None:
        key, query = self._target()
        if "list-type" in query:
            self._list(query)
            return
        content = self.server.objects.get(key)
        if content is None:
            self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        etag = {"ETag": _etag(content), "Last-Modified": DATE}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            self._say(200, content, etag)
            return
        first, last = span.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        stop = min(len(content), int(last) + 1) if first and last else len(content)
        etag["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._say(206, content[start:stop], etag)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        key, query = self._target()
        content = self._body()
        with self.server.lock:
            if "uploadId" in query:
                self.server.uploads[query["uploadId"]][int(query["partNumber"])] = content
            elif self.headers.get("If-None-Match") == "*" and key in self.server.objects:
                self._say(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            else:
                self.server.objects[key] = content
        self._say(200, b"", {"ETag": _etag(content)})

    def do_POST(self) -> None:
        key, query = self._target()
        body = self._body().decode()
        with self.server.lock:
            if "uploads" in query:
                name = str(len(self.server.uploads))
                self.server.uploads[name] = {}
                answer = _element("InitiateMultipartUploadResult", _element("UploadId", name))
            elif "uploadId" in query:
                parts = self.server.uploads.pop(query["uploadId"])
                content = b"".join(parts[number] for number in sorted(parts))
                self.server.objects[key] = content
                answer = _element("CompleteMultipartUploadResult", _element("ETag", _etag(content)))
            else:
                names = [unescape(name) for name in re.findall(r"<Key>(.*?)</Key>", body)]
                for name in names:
                    self.server.objects.pop(name, None)
                deleted = [_element("Deleted", _element("Key", escape(name))) for name in names]
                answer = _element("DeleteResult", "".join(deleted))
        self._say(200, answer.encode())

    def do_DELETE(self) -> None:
        key, _ = self._target()
        with self.server.lock:
            self.server.objects.pop(key, None)
        self._say(204, b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _target(self) -> tuple[str, dict[str, str]]:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return urllib.parse.unquote(parts.path).removeprefix("/bucket").lstrip("/"), query

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        with self.server.lock:
            everything = dict(self.server.objects)
        objects = {name: content for name, content in everything.items() if name.startswith(prefix)}
        found, folders = [], set()
        for name in sorted(objects):
            if name <= query.get("start-after", ""):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            parts = {
                "Key": escape(name),
                "LastModified": "2024-01-01T00:00:00.000Z",
                "ETag": _etag(objects[name]),
                "Size": str(len(objects[name])),
            }
            found.append(_element("Contents", "".join(_element(*part) for part in parts.items())))
        found += [_element("CommonPrefixes", _element("Prefix", escape(name))) for name in sorted(folders)]
        answer = _element("ListBucketResult", _element("IsTruncated", "false") + "".join(found))
        self._say(200, answer.encode())

    def _say(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>"


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """Serve an empty bucket, and give the storage options for it.

    In a process of its own: deltalake waits for answers without letting other threads of Python run.
    """
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1",
            }
        finally:
            process.kill()


if __name__ == "__main__":
    server = Bucket()
    print(server.server_port, flush=True)
    server.serve_forever()
