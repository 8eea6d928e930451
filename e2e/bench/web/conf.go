package main

// The configurations: TLS and a pool of connections to the app, logs off, no other feature.

// appConf is the app behind all: directory, port, body.
const appConf = `
user root; worker_processes 1; daemon off; pid %[1]s/app.pid; error_log %[1]s/app.log;
events { worker_connections 8192; }
http {
	access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; sendfile on; default_type text/plain;
	server {
		listen 127.0.0.1:%[2]d backlog=4096;
		location = /1k { return 200 "%[3]s"; }
		location = /1m { root %[1]s; }
		location = / { return 200 ""; }
	}
}
`

const nginxConf = `
user root; worker_processes auto; daemon off; pid DIR/nginx.pid; error_log DIR/nginx.log;
events { worker_connections 8192; }
http {
	access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
	proxy_temp_path DIR/nginx-proxy; client_body_temp_path DIR/nginx-body;
	upstream app { server 127.0.0.1:APP; keepalive 64; keepalive_requests 1000000000; }
	server {
		listen 127.0.0.1:PORT ssl http2 backlog=4096;
		ssl_certificate DIR/both.pem; ssl_certificate_key DIR/both.pem; ssl_protocols TLSv1.2 TLSv1.3;
		location / {
			proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
			proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
			proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-Host $http_host;
		}
	}
}
`

const haproxyConf = `
global
	maxconn 8192
	ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
	mode http
	timeout client 1h
	timeout server 1h
	timeout connect 5s
	timeout http-keep-alive 1h
	http-reuse always
	option forwardfor
frontend web
	bind 127.0.0.1:PORT ssl crt DIR/both.pem alpn h2,http/1.1 backlog 4096
	http-request set-header X-Forwarded-Proto https
	http-request set-header X-Forwarded-Host %[req.hdr(host)]
	default_backend app
backend app
	server app 127.0.0.1:APP
`

const caddyConf = `
{
	admin off
	auto_https off
	persist_config off
	servers {
		protocols h1 h2
	}
}
https://app.bench.localhost:PORT {
	bind 127.0.0.1
	tls DIR/both.pem DIR/both.pem
	reverse_proxy 127.0.0.1:APP
}
`
