"""Drives members with the Python client etcd3gw, which speaks JSON to the gateway, over TLS.

Every claim is checked; the first that fails ends with status 1. The library knows no passwords: the token that the
gateway gives for one goes into its session's headers.
"""

import os
import threading
import time
from urllib.parse import urlparse

import etcd3gw
import requests
from etcd3gw.exceptions import ConnectionFailedError, Etcd3Exception

ENDPOINTS = [urlparse(endpoint) for endpoint in os.environ["ENDPOINTS"].split(",")]


def check(holds, claim, *seen):
    if not holds:
        print("FAILED:", claim, *seen, flush=True)
        os._exit(1)


def connect(member=0, user=None, password=None, ca_file=os.environ["CA_FILE"]):
    where = ENDPOINTS[member]
    client = etcd3gw.client(host=where.hostname, port=where.port, protocol="https", ca_cert=ca_file, timeout=20)
    client.session.trust_env = False  # REQUESTS_CA_BUNDLE would take the place of ca_cert
    if user is not None:
        answer = client.post(client.get_url("/auth/authenticate"), json={"name": user, "password": password})
        client.session.headers["Authorization"] = answer["token"]
    return client


def refused(call, text, status):
    try:
        call()
    except Etcd3Exception as refusal:
        check(text in str(refusal.detail_text), "the text of a refusal", text, refusal.detail_text)
        check(str(refusal) == status, "the status of a refusal", status, str(refusal))
        return
    check(False, "it is refused", text)


def key_value(client, other, root):
    check(client.create(root + "a", "1"), "create what is not there")
    check(not client.create(root + "a", "2"), "do not create what is")
    check(client.put(root + "a", "2"), "put")
    check(client.put(root + "b", "3"), "put")
    value, facts = other.get(root + "a", metadata=True)[0]
    check((value, facts["version"], facts["key"]) == (b"2", "2", (root + "a").encode()), "another member has it", facts)
    check(client.get(root + "none") == [], "no such key")
    keys = [facts["key"].decode() for _, facts in client.get_prefix(root, sort_order="descend", sort_target="key")]
    check(keys == [root + "b", root + "a"], "a prefix, sorted", keys)
    check(client.replace(root + "a", "2", "9"), "replace what is there")
    check(not client.replace(root + "a", "2", "8"), "do not replace what is not")
    check(client.delete(root + "a"), "delete tells that it did")
    check(not client.delete(root + "a"), "delete tells that there was nothing")
    check(client.delete_prefix(root), "delete a prefix")
    check(client.get_prefix(root) == [], "it is gone")


def watch(client, admin, root):
    client.put(root + "w", "0")
    start = int(client.get(root + "w", metadata=True)[0][1]["mod_revision"])
    events, cancel = client.watch(root + "w", start_revision=start)
    for n in range(1, 4):
        admin.put(root + "w", str(n))
    admin.delete(root + "w")
    seen = [(event.get("type", "PUT"), event["kv"].get("value")) for event in (next(events) for _ in range(5))]
    cancel()
    check(seen == [("PUT", b"0"), ("PUT", b"1"), ("PUT", b"2"), ("PUT", b"3"), ("DELETE", None)], "five events", seen)


def leases(client, root):
    lease = client.lease(3)
    client.put(root + "l", "x", lease=lease)
    for _ in range(4):
        time.sleep(1)
        check(lease.refresh() == 3, "a renewal tells the TTL")
    check(client.get(root + "l") == [b"x"], "a renewed lease lives")
    check(lease.keys() == [(root + "l").encode()] and 0 <= lease.ttl() <= 3, "time to live with keys", lease.keys())
    began = time.monotonic()
    while client.get(root + "l"):
        check(time.monotonic() - began < 15, "an abandoned lease ends")
        time.sleep(0.05)
    other = client.lease(60)
    client.put(root + "l", "y", lease=other)
    other.revoke()
    check(client.get(root + "l") == [], "a revoke takes its keys")


def lock(one, two, root):
    first, second = one.lock(root + "lock", ttl=20), two.lock(root + "lock", ttl=20)
    check(first.acquire(), "the first has the lock")
    check(not second.acquire(), "the second has it not")
    check(first.is_acquired() and not second.is_acquired(), "both know")
    check(first.release(), "the first gives it back")
    check(second.acquire() and second.release(), "the second has it then")


def permissions(client, root):
    denied = "etcdserver: permission denied"
    refused(lambda: client.put("elsewhere", "1"), denied, "Forbidden")
    refused(lambda: client.get("elsewhere"), denied, "Forbidden")
    refused(lambda: client.delete_prefix("app"), denied, "Forbidden")
    refused(lambda: client.create("elsewhere", "1"), denied, "Forbidden")
    stranger = connect()
    refused(lambda: stranger.get(root), "etcdserver: user name is empty", "Bad Request")
    guess = "etcdserver: authentication failed, invalid user ID or password"
    refused(lambda: connect(user="app", password="guessed"), guess, "Bad Request")
    stranger.session.headers["Authorization"] = "guessed"
    refused(lambda: stranger.get(root), "etcdserver: invalid auth token", "Unauthorized")
    try:
        connect(user="app", password=os.environ["APP_PASSWORD"], ca_file=os.environ["STRANGER_CA_FILE"])
        check(False, "a certificate of another authority is not trusted")
    except ConnectionFailedError as failure:
        check("certificate verify failed" in str(failure.detail_text), "why there is no connection", failure.detail_text)


def members(admin):
    listed = admin.members()
    check(sorted(member["name"] for member in listed) == ["member1", "member2", "member3"], "three members", listed)
    check(all(member["clientURLs"][0].startswith("https://") for member in listed), "they tell their URLs", listed)
    status = admin.status()
    check(status["leader"] in {member["ID"] for member in listed}, "one of them leads", status)


def main():
    root = f"app/etcd3gw/{time.time_ns()}/"
    one, two = (connect(member, "app", os.environ["APP_PASSWORD"]) for member in (0, 2))
    admin = connect(1, "root", os.environ["ROOT_PASSWORD"])
    key_value(one, two, root + "kv/")
    watch(one, admin, root + "watch/")
    leases(two, root + "lease/")
    lock(one, two, root + "lock/")
    permissions(one, root)
    members(admin)
    print(f"ok: python etcd3gw 2.7.0 with requests {requests.__version__}", flush=True)


late = threading.Timer(90, lambda: check(False, "done within 90 s"))
late.daemon = True
late.start()
main()
