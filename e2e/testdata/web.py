"""A page for the tests: a stream that waits for a second request, and an upgraded connection that echoes bytes."""
import http.server
import sys
import threading

go = threading.Event()


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def chunk(self, text):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def do_GET(self):
        if self.headers.get("Upgrade") == "echo":
            return self.echo()
        if self.path == "/go":
            go.set()
            return self.text("gone\n")
        if self.path != "/stream":
            return self.text("%s %s %s\n" % (self.headers.get("Host"), self.headers.get("X-Lodge-User"), self.headers.get("X-Lodge-Vm")))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(b"one\n")
        go.wait(60)
        self.chunk(b"two\n")
        self.chunk(b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.text("%d bytes\n" % len(body))

    def text(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def echo(self):
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "echo")
        self.end_headers()
        while data := self.rfile.readline():
            self.wfile.write(data)
            self.wfile.flush()
        self.close_connection = True


for port in map(int, sys.argv[1:] or ["9000"]):
    threading.Thread(target=http.server.ThreadingHTTPServer(("", port), Page).serve_forever).start()
