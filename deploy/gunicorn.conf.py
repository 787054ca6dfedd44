"""gunicorn -c deploy/gunicorn.conf.py wsgi:app - the web application alone, behind a proxy that buffers requests.

Without one (deploy/nginx.conf, deploy/Caddyfile) 32 slow senders occupy all threads: a gthread worker reads headers and
bodies in the thread that answers. `crm-sync serve` reads them beside its threads and may stand alone.
"""

from crm_sync.web.masking import mask_logs

bind = "127.0.0.1:8080"
# Two processes of 16 threads answer nearly twice as much as one of 64: the interpreter lock (design/performance.md 1).
worker_class = "gthread"
workers = 2
threads = 16
worker_connections = 1000
backlog = 1024
# Each process opens its own database: nothing is opened before they part.
preload_app = False

timeout = 60
graceful_timeout = 25  # what docker, systemd and Kubernetes wait before they kill: 10 (set it higher), 90 and 30
keepalive = 15  # longer than a proxy keeps idle connections (nginx.conf: 10 s), so that none is closed under a request
# A heartbeat is a change of a file: on a busy disk it waits, and the master takes the worker for dead.
worker_tmp_dir = "/dev/shm"  # noqa: S108 - the file is unlinked as soon as it is made

limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190

# From 27 on a socket is made by which who may open it commands the master.
control_socket_disable = True
# Else X-Forwarded-… and SCRIPT_NAME are believed of whoever connects from this machine; CRM_SYNC_TRUSTED_PROXIES says
# to the application what is.
forwarded_allow_ips = ""

# Off; `--access-logfile -` switches it on. The token of a callback's address is masked in both logs.
accesslog = None
errorlog = "-"


def on_starting(_server: object) -> None:
    mask_logs()


def post_worker_init(worker: object) -> None:
    """Each process shows at once that it is at work; `crm-sync doctor` compares its version and settings."""
    worker.wsgi.extensions["crm_sync"]()  # type: ignore[attr-defined]
