"""What schemathesis is told of the management API beyond its document.

With QUORATE_API_SOCKET, the unix socket of a real node, also what its tokens and seeds are at that moment: a worker's
token is good once, the token of cluster-api may have been set to another one, and only a plan gives a seed.
"""

import base64
import http.client
import itertools
import json
import os
import socket
import uuid

import schemathesis

SOCKET = os.environ.get("QUORATE_API_SOCKET")
CAPI_TOKEN = os.environ.get("QUORATE_CAPI_TOKEN", "right")

NUMBERS = itertools.count(1)


class Node(http.client.HTTPConnection):
    """The node's API on its unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(SOCKET)


def post(path, body, **headers):
    """The metadata of a call that succeeds."""
    node = Node("localhost", timeout=60)
    try:
        node.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
        answer = node.getresponse()
        envelope = json.loads(answer.read())
        if answer.status not in (200, 202):
            raise RuntimeError(f"{path} answers {answer.status}: {envelope}")
        return envelope["metadata"]
    finally:
        node.close()


def worker_secret():
    """Of a token that no worker has used yet."""
    token = post("/1.0/k8sd/cluster/tokens", {"name": "", "worker": True})["token"]
    return json.loads(base64.b64decode(token))["secret"]


def is_uuid(text):
    try:
        return str(uuid.UUID(text)) == text
    except (TypeError, ValueError, AttributeError):
        return False


@schemathesis.hook
def before_call(context, case, kwargs):
    """A stream of events has no end: ask for what is kept alone."""
    if case.path == "/1.0/events":
        query = dict(case.query or {})
        query["wait"] = "false"
        case.query = query
    if case.path.endswith("/wait"):
        query = dict(case.query or {})
        query.setdefault("timeout", 0)
        case.query = query
    # Else all would have the same key, and none but the first be looked at.
    if case.headers.get("idempotency-key") and (case.meta is None or case.meta.generation.mode.is_positive):
        case.headers["idempotency-key"] = str(uuid.uuid4())
    if SOCKET:
        make_true(case)


def make_true(case):
    """Puts what counts at this moment where the document can only say that there is a text or a number."""
    if case.path.startswith("/1.0/operations/{id}") and is_uuid(case.path_parameters.get("id")):
        begun = post("/1.0/k8sd/cluster/remove", {"name": "nobody"}, Prefer="respond-async")
        case.path_parameters["id"] = begun["id"]
    if case.path.startswith("/1.0/x/capi/") and case.headers.get("capi-auth-token") == CAPI_TOKEN:
        post("/1.0/x/capi/set-auth-token", {"token": CAPI_TOKEN})
    if case.path.endswith("/worker/info") and case.headers.get("worker-token") == "worker::t":
        case.headers["worker-token"] = worker_secret()
        case.headers["worker-name"] = f"w{next(NUMBERS)}"
    if case.meta is None or case.meta.generation.mode.is_positive:
        make_body_true(case.path, case.body)


def make_body_true(path, body):
    """The same in a body that fits the document; names are left as they are every other time."""
    if not isinstance(body, dict):
        return
    number = next(NUMBERS)
    if path.endswith("/refresh-certs/run"):
        names = body.get("certificates")
        if set(names or []) <= {"server", "peer", "client", "member-api"}:
            plan = post("/1.0/k8sd/refresh-certs/plan", {"certificates": names})
            body["seed"] = plan["seconds"]
    elif path.endswith("/worker/info"):
        body["address"] = address(number)
        body["csr"] = None
    elif number % 2 and (path.endswith("/cluster/remove") or path.endswith("/remove-node")):
        body["name"] = f"w{number}"
        body["timeout"] = 0
        token = {"Worker-Name": body["name"], "Worker-Token": worker_secret()}
        post("/1.0/k8sd/worker/info", {"address": address(number)}, **token)
    elif number % 2 and (path.endswith("/cluster/tokens") or path.endswith("-join-token")):
        body["name"] = f"n{number}"


def address(number):
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
