# Answers with what it has got, and sets cookies for all names that it can think of.
import http.server
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"page of {sys.argv[1]} at {self.headers['Host']}, cookies: {self.headers.get('Cookie', 'none')}\n".encode()
        self.send_response(200)
        for domain in "", "; Domain=lodge.example", "; Domain=alpha.lodge.example", "; Domain=alpha.example", "; Domain=example":
            self.send_header("Set-Cookie", f"from-{sys.argv[1]}=1; Path=/{domain}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", 9000), Handler).serve_forever()
