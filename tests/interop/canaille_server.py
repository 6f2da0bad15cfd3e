"""Canaille on a free port of the loopback interface, with users and clients in memory.

REDIRECT_URI is the redirect URI of the client `wave`, and POST_LOGOUT_REDIRECT_URI that after sign-out. The first line of output is the issuer. The user
`alice` has the password `wonderland-42`. The audience of a token is its client.
"""

import os
import secrets

from canaille import create_app
from canaille.app import models
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


# Routes a request to the app, which is created after the port is known.
server = make_server("127.0.0.1", 0, lambda *request: app(*request), threaded=True, request_handler=Quiet)
host = f"127.0.0.1:{server.server_port}"
app = create_app(
    {
        "SECRET_KEY": secrets.token_hex(),
        "SERVER_NAME": host,
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "memory"},
        "CANAILLE_OIDC": {},
    }
)


def client(name, **settings):
    client = models.Client(
        client_id=name,
        client_name=name,
        client_secret=f"{name}-s3cret",
        grant_types=["authorization_code", "client_credentials", "password", "refresh_token"],
        response_types=["code"],
        scope=["openid", "profile", "email", "groups"],
        token_endpoint_auth_method="client_secret_basic",
        **settings,
    )
    app.backend.save(client)
    client.audience = [client]
    app.backend.save(client)


with app.app_context():
    client("drive")
    client(
        "wave",
        redirect_uris=[os.environ["REDIRECT_URI"]],
        post_logout_redirect_uris=[os.environ["POST_LOGOUT_REDIRECT_URI"]],
    )
    alice = models.User(
        user_name="alice",
        formatted_name="Alice Smith",
        family_name="Smith",
        emails=["alice@wave.example"],
        password="wonderland-42",
    )
    app.backend.save(alice)
    app.backend.save(models.Group(display_name="docs_internal", members=[alice]))

print(f"http://{host}", flush=True)
server.serve_forever()
