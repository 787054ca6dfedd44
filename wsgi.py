"""For any WSGI server: gunicorn wsgi:app"""

from crm_sync.bootstrap import web_app

app = web_app()
