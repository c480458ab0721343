"""nginx as a reverse proxy before the SuperLink, which lets clients reach Flower's Fleet API and nothing else.

The proxy is needed because Flower's Control API shares the SuperLink's port, runs any code on the server, and has no
login.
"""

import shutil
import subprocess

from common.network import has_ipv6
from fedlmg_server.deployment.settings import Deployment, DeploymentError
from fedlmg_server.flower.compat import FLEET_API

MAX_BODY = "16m"
"""Flower sends weights in chunks of 5 MB; nginx's default limit of 1 MB would reject them."""
CONFIGURATION = """\
# Written by `fedlmg server`. Clients reach {fleet_api} and nothing else.
daemon off;
worker_processes auto;
pid "{folder}/nginx.pid";
error_log "{logs}/nginx.log" warn;
events {{ worker_connections 1024; }}
http {{
  server_tokens off;
  client_body_temp_path "{folder}/body";
  proxy_temp_path "{folder}/proxy";
  fastcgi_temp_path "{folder}/fastcgi";
  uwsgi_temp_path "{folder}/uwsgi";
  scgi_temp_path "{folder}/scgi";
  # Log rejected requests only: clients send a request every few seconds.
  map $status $is_refused {{ ~^[23] 0; default 1; }}
  access_log "{logs}/refused.log" combined if=$is_refused;
  server {{
{listen}
    ssl_certificate "{certificate}";
    ssl_certificate_key "{certificate_key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    client_max_body_size {max_body};
    location {fleet_api} {{
      proxy_pass https://127.0.0.1:{superlink_port};
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate "{authority}";
      proxy_ssl_name localhost;
    }}
    location / {{ return 403; }}
  }}
}}
"""
INSTALL = "nginx is not installed: run `sudo apt install nginx-light` (Debian, Ubuntu) or `sudo dnf install nginx`"


def write_configuration(deployment: Deployment) -> None:
    """Write `nginx/nginx.conf` from the deployment's settings."""
    deployment.nginx.mkdir(parents=True, exist_ok=True)
    text = CONFIGURATION.format(
        folder=deployment.nginx,
        logs=deployment.logs,
        listen="\n".join(f"    listen {address} ssl;" for address in list_addresses(deployment.port)),
        superlink_port=deployment.superlink_port,
        certificate=deployment.certificate,
        certificate_key=deployment.certificate_key,
        authority=deployment.authority,
        max_body=MAX_BODY,
        fleet_api=FLEET_API,
    )
    (deployment.nginx / "nginx.conf").write_text(text, encoding="utf-8")


def list_addresses(port: int) -> list[str]:
    """Where nginx listens: on all addresses of the machine, of both families if it has both."""
    return [str(port), f"[::]:{port}"] if has_ipv6() else [str(port)]


def nginx_command(deployment: Deployment) -> list[str]:
    """Check the configuration, and return the command that runs nginx in the foreground.

    Raises
    ------
    DeploymentError: nginx is not installed, or rejects the configuration.
    """
    # Debian installs nginx in a folder that is only on root's PATH.
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise DeploymentError(INSTALL)
    arguments = [nginx, "-p", str(deployment.nginx), "-c", str(deployment.nginx / "nginx.conf")]
    arguments += ["-e", str(deployment.logs / "nginx.log")]
    test = subprocess.run([*arguments, "-t", "-q"], capture_output=True, encoding="utf-8", errors="replace")
    if test.returncode:
        raise DeploymentError(f"nginx rejects {deployment.nginx / 'nginx.conf'}: {test.stderr.strip()}")
    return arguments
