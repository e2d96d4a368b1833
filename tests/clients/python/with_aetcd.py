"""Drives members with the Python client aetcd. Every claim is checked; the first that fails ends with status 1.

The library has no TLS, so it takes the ports without; users and passwords hold there too.
"""

import asyncio
import os
import sys
import time
from urllib.parse import urlparse

import aetcd


def check(holds, claim, *seen):
    if not holds:
        print("FAILED:", claim, *seen)
        sys.exit(1)


async def key_value(client, root):
    first = await client.put(root + b"a", b"1")
    again = await client.put(root + b"a", b"2", prev_kv=True)
    check(again.header.revision == first.header.revision + 1, "a put is one revision")
    check(again.prev_kv.value == b"1", "prev_kv is the old value", again)
    await client.put(root + b"b", b"3")
    got = await client.get(root + b"a")
    check((got.value, got.version) == (b"2", 2), "a get", got)
    check(await client.get(root + b"none") is None, "no such key")
    keys = [kv.key for kv in await client.get_prefix(root, sort_order="descend", sort_target="key")]
    check(keys == [root + b"b", root + b"a"], "a prefix, sorted", keys)
    check(await client.replace(root + b"a", b"2", b"9"), "replace what is there")
    check(not await client.replace(root + b"a", b"2", b"8"), "do not replace what is not")
    txns = client.transactions
    done, responses = await client.transaction(
        compare=[txns.value(root + b"a") == b"9", txns.version(root + b"a") > 1, txns.create(root + b"x") == 0],
        success=[txns.put(root + b"t", b"then"), txns.get(root + b"t")],
        failure=[txns.put(root + b"t", b"else")],
    )
    check(done and responses[1][0][0] == b"then", "a txn reads its own write", responses)
    try:
        await client.transaction(compare=[], success=[txns.put(root + b"d", b"1"), txns.put(root + b"d", b"2")], failure=[])
        check(False, "a key put twice is refused")
    except aetcd.exceptions.InvalidArgumentError as refused:
        check("duplicate key given in txn request" in str(refused), "the text of the refusal", refused)
    deleted = await client.delete_prefix(root)
    check(deleted.deleted == 3, "delete tells how many", deleted)


async def watch(client, admin, root):
    start = (await client.put(root + b"w", b"0")).header.revision
    live = await client.watch_prefix(root, prev_kv=True)
    for n in range(1, 4):
        await client.put(root + b"w", str(n).encode())
    await client.delete(root + b"w")
    seen = []
    async for event in live:
        seen.append((event.kind, event.kv.value, event.prev_kv.value))
        if len(seen) == 4:
            break
    expected = [("PUT", b"1", b"0"), ("PUT", b"2", b"1"), ("PUT", b"3", b"2"), ("DELETE", b"", b"3")]
    check(seen == expected, "four events with what was before", seen)
    await live.cancel()
    values = []
    past = await client.watch(root + b"w", start_revision=start, kind=aetcd.rtypes.EventKind.PUT)
    async for event in past:
        values.append(event.kv.value)
        if len(values) == 4:
            break
    check(values == [b"0", b"1", b"2", b"3"], "history from a revision", values)
    await past.cancel()
    now = (await client.put(root + b"w", b"4")).header.revision
    await refused(client.compact(now), "permission denied")
    await admin.compact(now, physical=True)
    try:
        async for event in await client.watch(root + b"w", start_revision=start):
            check(False, "no event from a compacted start", event)
    except aetcd.exceptions.RevisionCompactedError as told:
        check(told.compacted_revision == now, "the compacted revision is told", told)


async def leases(client, root):
    lease = await client.lease(3)
    await client.put(root + b"l", b"x", lease=lease)
    for _ in range(4):
        await asyncio.sleep(1)
        await lease.refresh()
    check(await client.get(root + b"l") is not None, "a renewed lease lives")
    check(await lease.granted_ttl() == 3 and await lease.keys() == [root + b"l"], "time to live with keys")
    began = time.monotonic()
    while await client.get(root + b"l") is not None:
        check(time.monotonic() - began < 15, "an abandoned lease ends")
        await asyncio.sleep(0.05)
    other = await client.lease(60)
    await client.put(root + b"l", b"y", lease=other)
    await other.revoke()
    check(await client.get(root + b"l") is None, "a revoke takes its keys")


async def lock(client, root):
    count = 0

    async def worker():
        nonlocal count
        for _ in range(3):
            async with client.lock(root + b"lock", ttl=20):
                seen = count
                await asyncio.sleep(0.01)
                count = seen + 1

    await asyncio.gather(*(worker() for _ in range(3)))
    check(count == 9, "no update under the lock is lost", count)


async def refused(call, text):
    try:
        await call
    except Exception as refusal:
        check(text in str(refusal), "the text of a refusal", text, refusal)
        return
    check(False, "it is refused", text)


async def permissions(client, admin, stranger):
    await refused(client.put(b"elsewhere", b"1"), "permission denied")
    await refused(client.get(b"elsewhere"), "permission denied")
    await refused(client.delete_prefix(b"app"), "permission denied")
    txns = client.transactions
    outside = client.transaction(
        compare=[txns.create(b"elsewhere") == 0], success=[txns.put(b"app/aetcd", b"1")], failure=[]
    )
    await refused(outside, "permission denied")
    check(await client.get(b"app/aetcd") is None, "a refused transaction does nothing")
    await admin.put(b"elsewhere", b"1")
    check((await admin.get(b"elsewhere")).value == b"1", "root may all")
    await refused(stranger.get(b"app/aetcd"), "user name is empty")
    await refused(stranger.put(b"app/aetcd", b"1"), "user name is empty")


async def members(admin):
    listed = [member async for member in admin.members()]
    check(sorted(member.name for member in listed) == ["member1", "member2", "member3"], "three members", listed)
    check(all(member.client_urls[0].startswith("https://") for member in listed), "they tell their URLs", listed)
    status = await admin.status()
    check(status.version.count(".") == 2, "a version", status.version)
    check(status.leader.name in ("member1", "member2", "member3"), "one of them leads", status.leader)


async def main():
    where = urlparse(os.environ["PLAIN_ENDPOINTS"].split(",")[1])
    place = {"host": where.hostname, "port": where.port, "timeout": 20}
    root = f"app/aetcd/{time.time_ns()}/".encode()
    app = aetcd.Client(username="app", password=os.environ["APP_PASSWORD"], **place)
    root_user = aetcd.Client(username="root", password=os.environ["ROOT_PASSWORD"], **place)
    wrong = aetcd.Client(username="app", password="guessed", **place)
    await refused(wrong.connect(), "authentication failed, invalid user ID or password")
    await wrong.close()
    async with app as client, root_user as admin, aetcd.Client(**place) as stranger:
        await key_value(client, root + b"kv/")
        await watch(client, admin, root + b"watch/")
        await leases(client, root + b"lease/")
        await lock(client, root + b"lock/")
        await permissions(client, admin, stranger)
        await members(admin)
    print("ok: python aetcd 1.0.0")


asyncio.run(asyncio.wait_for(main(), 90))
