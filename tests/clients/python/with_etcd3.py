"""Drives members over TLS with the Python client etcd3. Every claim is checked; the first that fails ends with status 1."""

import os
import threading
import time
from urllib.parse import urlparse

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would tell of the handshakes that are meant to fail

import etcd3  # noqa: E402
import grpc  # noqa: E402

ENDPOINTS = [urlparse(endpoint) for endpoint in os.environ["ENDPOINTS"].split(",")]


def check(holds, claim, *seen):
    if not holds:
        print("FAILED:", claim, *seen)
        os._exit(1)


def connect(member=0, ca_file=os.environ["CA_FILE"], **more):
    where = ENDPOINTS[member]
    return etcd3.client(host=where.hostname, port=where.port, ca_cert=ca_file, timeout=20, **more)


def eventually(holds, claim, seconds=15):
    began = time.monotonic()
    while not holds():
        check(time.monotonic() - began < seconds, claim)
        time.sleep(0.05)


def refused(call, text):
    try:
        call()
    except grpc.RpcError as refusal:
        check(text in str(refusal), "the text of a refusal", text, refusal)
        return
    check(False, "it is refused", text)


def key_value(client, other, root):
    first = client.put(root + "a", "1")
    again = client.put(root + "a", "2", prev_kv=True)
    check(again.header.revision == first.header.revision + 1, "a put is one revision", again)
    check(again.prev_kv.value == b"1", "prev_kv is the old value", again)
    client.put(root + "b", "3")
    value, facts = other.get(root + "a")
    check((value, facts.version) == (b"2", 2), "another member has it at once", value, facts)
    check(client.get(root + "none") == (None, None), "no such key")
    keys = [facts.key.decode() for _, facts in client.get_prefix(root, sort_order="descend", sort_target="key")]
    check(keys == [root + "b", root + "a"], "a prefix, sorted", keys)
    check(client.replace(root + "a", "2", "9"), "replace what is there")
    check(not client.replace(root + "a", "2", "8"), "do not replace what is not")
    check(client.put_if_not_exists(root + "c", "4"), "put what is not there")
    check(not client.put_if_not_exists(root + "c", "5"), "do not put what is")
    txns = client.transactions
    done, responses = client.transaction(
        compare=[txns.value(root + "a") == "9", txns.version(root + "a") > 1, txns.create(root + "x") == "0"],
        success=[txns.put(root + "t", "then"), txns.get(root + "t")],
        failure=[txns.put(root + "t", "else")],
    )
    check(done and responses[1][0][0] == b"then", "a txn reads its own write", responses)
    twice = [txns.put(root + "d", "1"), txns.put(root + "d", "2")]
    refused(lambda: client.transaction(compare=[], success=twice, failure=[]), "duplicate key given in txn request")
    refused(lambda: client.put("", "x"), "key is not provided")
    check(client.delete_prefix(root).deleted == 4, "delete tells how many")


def watch(client, admin, root):
    start = client.put(root + "w", "0").header.revision
    events, cancel = client.watch_prefix(root, prev_kv=True)
    for n in range(1, 4):
        admin.put(root + "w", str(n))
    admin.delete(root + "w")
    seen = []
    for event in events:
        seen.append((type(event).__name__, event.value, event.prev_value))
        if len(seen) == 4:
            break
    cancel()
    expected = [("PutEvent", b"1", b"0"), ("PutEvent", b"2", b"1"), ("PutEvent", b"3", b"2"), ("DeleteEvent", b"", b"3")]
    check(seen == expected, "four events with what was before", seen)
    events, cancel = client.watch(root + "w", start_revision=start)
    values = [next(events).value for _ in range(5)]
    cancel()
    check(values == [b"0", b"1", b"2", b"3", b""], "history from a revision", values)
    now = client.put(root + "w", "4").header.revision
    refused(lambda: client.compact(now), "permission denied")
    admin.compact(now, physical=True)
    events, cancel = client.watch(root + "w", start_revision=start)
    try:
        check(False, "no event from a compacted start", next(events))
    except etcd3.exceptions.RevisionCompactedError as told:
        check(told.compacted_revision == now, "the compacted revision is told", told)


def leases(client, root):
    lease = client.lease(3)
    client.put(root + "l", "x", lease=lease)
    for _ in range(4):
        time.sleep(1)
        answers = lease.refresh()
        check(answers[0].TTL == 3, "a renewal tells the TTL", answers)
    check(client.get(root + "l")[0] == b"x", "a renewed lease lives")
    check(lease.granted_ttl == 3 and lease.keys == [(root + "l").encode()], "time to live with keys", lease.keys)
    eventually(lambda: client.get(root + "l")[0] is None, "an abandoned lease ends")
    other = client.lease(60)
    client.put(root + "l", "y", lease=other)
    other.revoke()
    check(client.get(root + "l")[0] is None, "a revoke takes its keys")


def lock(clients, root):
    count = 0

    def worker(client):
        nonlocal count
        for _ in range(3):
            with client.lock(root + "lock", ttl=20):
                seen = count
                time.sleep(0.01)
                count = seen + 1

    workers = [threading.Thread(target=worker, args=(client,)) for client in clients]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    check(count == 3 * len(clients), "no update under the lock is lost", count)


def election(one, two, root):
    """The library has none of its own: who puts the key of a lease first leads, as its readers build it."""
    key = root + "leader"
    first, second = one.lease(60), two.lease(60)
    check(one.put_if_not_exists(key, "one", lease=first), "the first wins")
    check(not two.put_if_not_exists(key, "two", lease=second), "the second does not")
    resigned = threading.Event()
    watched = two.add_watch_callback(key, lambda _: resigned.set())
    first.revoke()
    check(resigned.wait(15), "all see that the leader went")
    check(two.put_if_not_exists(key, "two", lease=second), "the second wins then")
    check(one.get(key)[0] == b"two", "all see who leads")
    two.cancel_watch(watched)
    second.revoke()


def permissions(client, admin, root):
    txns = client.transactions
    refused(lambda: client.put("elsewhere", "1"), "permission denied")
    refused(lambda: client.get("elsewhere"), "permission denied")
    refused(lambda: client.delete_prefix("app"), "permission denied")
    outside = [txns.create("elsewhere") == "0"]
    refused(
        lambda: client.transaction(compare=outside, success=[txns.put(root + "p", "1")], failure=[]), "permission denied"
    )
    check(client.get(root + "p")[0] is None, "a refused transaction does nothing")
    lease = admin.lease(60)
    admin.put("elsewhere/l", "1", lease=lease)
    refused(lambda: client.revoke_lease(lease.id), "permission denied")
    refused(lambda: client.put(root + "l", "1", lease=lease.id), "permission denied")
    lease.revoke()
    refused(lambda: client.add_member(["https://127.0.0.1:23999"]), "permission denied")
    refused(lambda: client.defragment(), "permission denied")
    refused(lambda: connect(user="app", password="guessed"), "authentication failed, invalid user ID or password")
    refused(lambda: connect(user="nobody", password="guessed"), "authentication failed, invalid user ID or password")
    stranger = connect()
    refused(lambda: stranger.get(root + "p"), "user name is empty")
    other_authority = connect(ca_file=os.environ["STRANGER_CA_FILE"])
    try:
        other_authority.get(root + "p")
        check(False, "a certificate of another authority is not trusted")
    except etcd3.exceptions.ConnectionFailedError:
        pass


def members(admin):
    listed = list(admin.members)
    check(sorted(member.name for member in listed) == ["member1", "member2", "member3"], "three members", listed)
    check(all(member.client_urls[0].startswith("https://") for member in listed), "they tell their URLs")
    leaders = {connect(n, user="root", password=os.environ["ROOT_PASSWORD"]).status().leader.name for n in range(3)}
    check(len(leaders) == 1, "all know the same leader", leaders)
    admin.defragment()
    check(list(admin.list_alarms()) == [], "no alarm")


def main():
    root = f"app/etcd3/{time.time_ns()}/"
    app = {"user": "app", "password": os.environ["APP_PASSWORD"]}
    clients = [connect(n, **app) for n in range(3)]
    admin = connect(1, user="root", password=os.environ["ROOT_PASSWORD"])
    key_value(clients[0], clients[2], root + "kv/")
    watch(clients[0], admin, root + "watch/")
    leases(clients[1], root + "lease/")
    lock(clients, root + "lock/")
    election(clients[0], clients[1], root + "election/")
    permissions(clients[0], admin, root + "permissions/")
    members(admin)
    print("ok: python etcd3 0.12.0")


late = threading.Timer(90, lambda: check(False, "done within 90 s"))
late.daemon = True
late.start()
main()
