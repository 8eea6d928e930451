#!/usr/bin/env python3
"""A small page that shows what a Lodge VM has without any key: its visitor, its mail, and its files in S3.

Python's standard library only. It serves on port 8000, which the host makes https://<this VM>.<domain>.
Everything that strangers have written (mail, file names) reaches the browser as JSON and is shown as text, never as HTML.
"""

import datetime
import email.parser
import email.policy
import html
import http.client
import json
import os
import pathlib
import secrets
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8000"))
MAILDIR = pathlib.Path(os.environ.get("MAILDIR", pathlib.Path.home() / "Maildir"))
S3 = os.environ.get("AWS_ENDPOINT_URL_S3", "http://s3.lodge.internal")
BUCKET = "hello"
MAX_UPLOAD = 64 << 20  # bytes
MAX_MAILS = 20
MAX_MAIL_READ = 256 << 10  # bytes of one mail that are parsed
MAX_FILES = 200
STATE_LIFE = 1.5  # seconds; all visitors share one reading of the mailbox and the bucket
KEEPALIVE = 15  # seconds
BROKEN = (OSError, http.client.HTTPException)  # what a request to S3 raises; urllib's errors are OSErrors


# --- Mail: one file each in Maildir/new, put there by the host --------------------------------


def mails():
    """The newest mails, as dicts of strings."""
    found = []
    for folder in ("new", "cur"):
        try:
            found += [(entry.stat().st_mtime, entry.path) for entry in os.scandir(MAILDIR / folder) if entry.is_file()]
        except OSError:
            pass  # it does not exist yet, or a mail was moved: the next reading has it
    found.sort(reverse=True)
    return [mail(when, path) for when, path in found[:MAX_MAILS]]


def mail(when, path):
    """One mail. An error in it does not hide the others."""
    shown = {"id": os.path.basename(path), "when": when, "from": "", "subject": "", "text": ""}
    try:
        with open(path, "rb") as file:
            message = email.parser.BytesParser(policy=email.policy.default).parsebytes(file.read(MAX_MAIL_READ))
        shown["from"] = one_line(message["From"])
        shown["subject"] = one_line(message["Subject"])
        body = message.get_body(("plain",))
        shown["text"] = one_line(body.get_content() if body else "", 280)
    except Exception as error:  # on malformed mail, the email package can raise almost any exception
        shown["text"] = f"(this mail cannot be read: {type(error).__name__})"
    return shown


def one_line(text, limit=160):
    """text on one line, not too long, and in a form that JSON can carry."""
    text = " ".join(str(text or "").split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.encode("utf-8", "replace").decode()


# --- Files: S3 without a key. The request looks signed; the host identifies the VM by its tap ---


def s3(method, path, body=None, headers=None, query=""):
    """Opens an S3 response. It raises urllib.error.HTTPError for 4xx and 5xx."""
    now = datetime.datetime.now(datetime.timezone.utc)
    url = f"{S3}/{BUCKET}{urllib.parse.quote(path)}{query}"
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    request.add_header("x-amz-date", now.strftime("%Y%m%dT%H%M%SZ"))
    request.add_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    request.add_header(
        "Authorization",
        f"AWS4-HMAC-SHA256 Credential=hello/{now:%Y%m%d}/us-east-1/s3/aws4_request, "
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={'0' * 64}",
    )
    return urllib.request.urlopen(request, timeout=30)


def files():
    """The files in the bucket, as dicts. A bucket that does not exist yet has none: the first upload makes it."""
    try:
        with s3("GET", "", query=f"?list-type=2&max-keys={MAX_FILES}") as answer:
            tree = xml.fromstring(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return []
        raise
    found = []
    for item in tree.findall("{*}Contents"):
        name, size, when = (item.findtext("{*}" + tag, "") for tag in ("Key", "Size", "LastModified"))
        found.append({"name": name, "bytes": int(size or 0), "when": when})
    return sorted(found, key=lambda file: file["when"], reverse=True)


class Upload:
    """The body of a request, as a file that ends where the body does."""

    def __init__(self, stream, length):
        self.stream, self.left = stream, length

    def read(self, size=-1):
        data = self.stream.read(self.left if size < 0 else min(size, self.left))
        if not data and self.left:
            raise ConnectionError("the upload ended early")
        self.left -= len(data)
        return data


# --- The state of the page: read once for all visitors ----------------------------------------


class State:
    """The mailbox and the bucket as JSON, not older than STATE_LIFE."""

    def __init__(self):
        self.lock, self.text, self.until = threading.Lock(), "", 0.0

    def get(self, fresh=False):
        with self.lock:
            if fresh or time.monotonic() >= self.until:
                self.text, self.until = self.look(), time.monotonic() + STATE_LIFE
            return self.text

    @staticmethod
    def look():
        state = {"mails": mails(), "files": [], "problem": ""}
        try:
            state["files"] = files()
        except (*BROKEN, xml.ParseError, ValueError) as error:
            state["problem"] = f"The files cannot be listed now: {explain(error)}"
        return json.dumps(state)


def explain(error):
    """The text of an S3 error."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    return one_line(getattr(error, "reason", error))


# --- HTTP -------------------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    """GET / (the page), GET /events (its live state), GET and PUT /files/<name>."""

    protocol_version = "HTTP/1.1"
    server_version = "hello"
    timeout = 60  # seconds that a visitor may be silent within a request
    state = State()

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/":
            self.page()
        elif path == "/events":
            self.events()
        elif path.startswith("/files/"):
            self.download(urllib.parse.unquote(path[len("/files/") :]))
        else:
            self.problem(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_PUT(self):
        path = urllib.parse.urlsplit(self.path).path
        name = urllib.parse.unquote(path[len("/files/") :]) if path.startswith("/files/") else ""
        length = self.headers.get("Content-Length", "")
        if not name or len(name.encode()) > 255 or "/" in name or not name.isprintable():
            self.problem(HTTPStatus.BAD_REQUEST, "That file name cannot be used.")
        elif not length.isdigit():
            self.problem(HTTPStatus.LENGTH_REQUIRED, "The upload has no Content-Length.")
        elif int(length) > MAX_UPLOAD:
            self.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A file may have up to {MAX_UPLOAD >> 20} MiB.")
        else:
            self.upload(name, int(length))

    def page(self):
        nonce = secrets.token_urlsafe(16)
        user = self.headers.get("X-Lodge-User", "")
        mail_address = self.headers.get("X-Lodge-Email", "")
        visitor = " · ".join(part for part in (user, mail_address if mail_address != user else "") if part)
        name = socket.gethostname()
        text = PAGE
        for word, value in {
            "NONCE": nonce,
            "NAME": name,
            "HOST": self.headers.get("Host", name).split(":")[0],
            "VISITOR": visitor or "someone who is not logged in",
            "LIMIT": str(MAX_UPLOAD),
        }.items():
            text = text.replace(f"@{word}@", html.escape(value))
        self.answer(
            HTTPStatus.OK,
            "text/html; charset=utf-8",
            text.encode(),
            {
                "Content-Security-Policy": "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                f"frame-ancestors 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
            },
        )

    def events(self):
        """The state now and whenever it changes (server-sent events), until the visitor disconnects."""
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        seen, sent = None, 0.0
        while True:
            state = self.state.get()
            if state != seen:
                self.wfile.write(f"data: {state}\n\n".encode())
                seen, sent = state, time.monotonic()
            elif time.monotonic() - sent > KEEPALIVE:
                self.wfile.write(b": still here\n\n")
                sent = time.monotonic()
            time.sleep(STATE_LIFE)

    def download(self, name):
        try:
            answer = s3("GET", "/" + name)
        except urllib.error.HTTPError as error:
            gone = error.code == HTTPStatus.NOT_FOUND
            self.problem(
                HTTPStatus.NOT_FOUND if gone else HTTPStatus.BAD_GATEWAY,
                "There is no such file." if gone else f"S3 does not give the file: {explain(error)}",
            )
            return
        except BROKEN as error:
            self.problem(HTTPStatus.BAD_GATEWAY, f"S3 does not answer: {explain(error)}")
            return
        with answer:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", answer.headers["Content-Length"])
            self.send_header("Content-Disposition", "attachment; filename*=UTF-8''" + urllib.parse.quote(name, safe=""))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile, 1 << 16)

    def upload(self, name, length):
        body = Upload(self.rfile, length)
        try:
            headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
            with s3("PUT", "/" + name, body if length else b"", headers):
                pass
        except BROKEN as error:
            self.problem(HTTPStatus.BAD_GATEWAY, f"S3 rejected the file: {explain(error)}")
            return
        self.state.get(fresh=True)
        self.answer(HTTPStatus.CREATED, "text/plain; charset=utf-8", b"stored\n")

    def problem(self, status, text):
        """An answer that ends the connection, since the request's body may not have been read."""
        self.close_connection = True
        self.answer(status, "text/plain; charset=utf-8", (text + "\n").encode(), {"Connection": "close"})
        self.linger()

    def linger(self):
        """Reads the input for a moment: a close with unread input resets the connection and can lose the answer."""
        end = time.monotonic() + 5
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2)
            while time.monotonic() < end and self.rfile.read1(1 << 16):
                pass
        except OSError:
            pass  # the visitor has disconnected

    def answer(self, status, kind, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Logs errors only."""

    def log_error(self, format, *args):
        print(f"{self.address_string()}: {format % args}", file=sys.stderr, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # a visitor who disconnects is no error
            super().handle_error(request, client_address)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>@NAME@</title>
<style nonce="@NONCE@">
:root { --back: #f6f4ef; --card: #fff; --ink: #23211c; --soft: #6a655a; --line: #e4dfd3; --accent: #2f6b4f; --bad: #a3341f; }
@media (prefers-color-scheme: dark) {
  :root { --back: #181a18; --card: #212421; --ink: #ecebe6; --soft: #a5a69c; --line: #343833; --accent: #7fc8a2; --bad: #f0917d; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 4rem; display: grid; gap: 1rem; }
@media (min-width: 48rem) { main { grid-template-columns: 1fr 1fr; } header { grid-column: 1 / -1; } }
h1 { margin: 0; font-size: 2.2rem; letter-spacing: -.02em; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.25rem; min-width: 0; align-self: start; }
ul { list-style: none; margin: 0; padding: 0; }
li { padding: .65rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
li:first-child { border-top: 0; }
.row { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline; }
.row > :last-child { flex: none; }
code, strong { overflow-wrap: anywhere; }
a { color: var(--accent); }
.live::before { content: ""; display: inline-block; width: .6em; height: .6em; margin-right: .45em; border-radius: 50%; background: var(--soft); }
.live.on::before { background: var(--accent); }
form { display: flex; flex-wrap: wrap; gap: .6rem; margin-bottom: .75rem; align-items: center; }
form label { flex: 1 1 100%; }
input[type=file] { flex: 1 1 12rem; min-width: 0; font: inherit; color: inherit; }
button { font: inherit; font-weight: 600; padding: .45rem 1rem; border: 0; border-radius: 8px; background: var(--accent); color: var(--card); cursor: pointer; }
button:disabled { opacity: .5; cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
progress { width: 100%; accent-color: var(--accent); }
.bad { color: var(--bad); }
</style>
</head>
<body>
<main>
<header>
<h1>@NAME@</h1>
<p>You are <strong id="visitor">@VISITOR@</strong>.</p>
<p class="soft live" id="live" role="status">connecting…</p>
</header>
<section class="card" aria-labelledby="mail">
<h2 id="mail">Mail</h2>
<p class="soft">Anything sent to <code>hi@@HOST@</code> arrives here.</p>
<ul id="mails" aria-live="polite"></ul>
</section>
<section class="card" aria-labelledby="files">
<h2 id="files">Files</h2>
<form id="upload">
<label for="file" class="soft">A file for the bucket <code>hello</code></label>
<input type="file" id="file" required>
<button>Upload</button>
</form>
<progress id="progress" max="1" value="0" aria-label="upload" hidden></progress>
<p id="problem" class="bad" role="alert"></p>
<ul id="list" aria-live="polite"></ul>
</section>
<noscript><p class="bad">This page needs JavaScript to stay up to date.</p></noscript>
</main>
<script nonce="@NONCE@">
"use strict";
const $ = id => document.getElementById(id);
const limit = Number("@LIMIT@");

// make builds an element. Text is inserted as text, so a stranger's input is never markup.
const make = (tag, text, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const row = (...children) => make("div", "", {class: "row"}, ...children);
const time = date => make("time", date.toLocaleString([], {dateStyle: "short", timeStyle: "short"}),
  {class: "soft", datetime: date.toISOString()});
const size = bytes => bytes < 1024 ? bytes + " B" : bytes < 1048576 ? (bytes / 1024).toFixed(1) + " KiB" : (bytes / 1048576).toFixed(1) + " MiB";
const fill = (list, items, none) =>
  list.replaceChildren(...(items.length ? items : [make("li", none, {class: "soft"})]));

const show = state => {
  fill($("mails"), state.mails.map(mail => make("li", "", {"data-mail": mail.id},
    row(make("strong", mail.subject || "(no subject)"), time(new Date(mail.when * 1000))),
    make("p", mail.from || "(no sender)", {class: "soft"}), make("p", mail.text))), "No mail yet.");
  fill($("list"), state.files.map(file => make("li", "", {"data-file": file.name},
    row(make("a", file.name, {href: "/files/" + encodeURIComponent(file.name), download: ""}),
      make("span", size(file.bytes), {class: "soft"})))), "No files yet.");
  $("problem").textContent = state.problem;
};

const live = (on, text) => { $("live").classList.toggle("on", on); $("live").textContent = text; };
const source = new EventSource("/events");
source.onopen = () => live(true, "live");
source.onerror = () => live(false, "connection lost, trying again…");
source.onmessage = event => show(JSON.parse(event.data));

$("upload").addEventListener("submit", event => {
  event.preventDefault();
  const file = $("file").files[0], bar = $("progress"), button = event.target.querySelector("button");
  $("problem").textContent = "";
  if (file.size > limit) { $("problem").textContent = "A file may have up to " + size(limit) + "."; return; }
  const request = new XMLHttpRequest();
  const done = problem => { bar.hidden = true; button.disabled = false; $("problem").textContent = problem; };
  request.upload.onprogress = step => { if (step.lengthComputable) bar.value = step.loaded / step.total; };
  request.onload = () => {
    done(request.status === 201 ? "" : request.responseText || "The upload failed (" + request.status + ").");
    if (request.status === 201) event.target.reset();
  };
  request.onerror = () => done("The upload failed: the connection was lost.");
  bar.value = 0; bar.hidden = false; button.disabled = true;
  request.open("PUT", "/files/" + encodeURIComponent(file.name));
  request.send(file);
});
</script>
</body>
</html>
"""


if __name__ == "__main__":
    with Server(("", PORT), Page) as server:
        server.serve_forever()
