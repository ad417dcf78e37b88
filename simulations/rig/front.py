# SPDX-License-Identifier: Apache-2.0
"""nginx before the SuperLink: TLS for hospitals, and of everything that the SuperLink offers, the fleet's path alone.

Whoever reaches the rest of that port can submit code to the coordinator or register nodes. What is passed on goes to loopback, again
under TLS, to a certificate that the coordinator made for itself. Bodies are not stored on the way, either way: a model is large, and a
line is slow.
"""

from pathlib import Path
from typing import Final

from simulations.rig.places import Places

_CONFIGURATION: Final = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/passed;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    server_tokens off;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {certificates}/server.crt;
        ssl_certificate_key {certificates}/server.key;
        ssl_protocols TLSv1.3;
        keepalive_timeout 300s;
        location /v1/fleet/ {{
            proxy_pass https://127.0.0.1:{superlink};
            proxy_ssl_trusted_certificate {coordinator}/tls/ca.crt;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 600s;
            proxy_send_timeout 600s;
        }}
        location / {{ return 404; }}
    }}
}}
"""


def configure(places: Places, *, listen: tuple[str, int], superlink: int, as_root: bool) -> Path:
    """Write nginx's configuration; returns its file."""
    folder = places.folder / "nginx"
    folder.mkdir(exist_ok=True)
    file = folder / "nginx.conf"
    host, port = listen
    text = _CONFIGURATION.format(
        user="user nobody nogroup;" if as_root else "",
        folder=folder,
        host=host,
        port=port,
        certificates=places.proxy / "live",
        superlink=superlink,
        coordinator=places.coordinator,
    )
    file.write_text(text)
    return file
