// Drives members over TLS with the npm client etcd3. Every claim is checked; the first that fails ends with status 1.
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { readFileSync } = require('node:fs');
const { Etcd3 } = require('etcd3');

const hosts = process.env.ENDPOINTS.split(',');

function connect(username, password, caFile = process.env.CA_FILE) {
  const auth = username && { username, password };
  return new Etcd3({ hosts, credentials: { rootCertificate: readFileSync(caFile) }, auth });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function keyValue(client, root) {
  await client.put(root + 'a').value('1');
  await client.put(root + 'b').value('2');
  assert.equal(await client.get(root + 'a').string(), '1');
  assert.equal(await client.get(root + 'none').string(), null);
  assert.deepEqual(await client.getAll().prefix(root).sort('Key', 'Descend').keys(), [root + 'b', root + 'a']);
  assert.equal(await client.getAll().prefix(root).count(), 2);
  const txn = await client
    .if(root + 'a', 'Value', '==', '1')
    .and(root + 'x', 'Create', '==', 0)
    .then(client.put(root + 't').value('then'), client.get(root + 't'))
    .else(client.put(root + 't').value('else'))
    .commit();
  assert.ok(txn.succeeded);
  assert.equal(txn.responses[1].response_range.kvs[0].value.toString(), 'then');
  await assert.rejects(client.put('').value('x').exec(), /key is not provided/);
  assert.equal((await client.delete().prefix(root).exec()).deleted, '3');
}

async function watch(client, admin, root) {
  const first = await client.put(root + 'w').value('0').exec();
  const live = await client.watch().prefix(root).withPreviousKV().create();
  const events = [];
  live.on('put', (kv, previous) => events.push(`put ${kv.value} after ${previous.value}`));
  live.on('delete', (kv, previous) => events.push(`delete after ${previous.value}`));
  await admin.put(root + 'w').value('1');
  await admin.put(root + 'w').value('2');
  await admin.delete().key(root + 'w').exec();
  for (let n = 0; n < 200 && events.length < 3; n++) await pause(20);
  assert.deepEqual(events, ['put 1 after 0', 'put 2 after 1', 'delete after 2']);
  await live.cancel();
  const past = await client.watch().key(root + 'w').startRevision(first.header.revision).only('put').create();
  const values = [];
  past.on('put', (kv) => values.push(kv.value.toString()));
  for (let n = 0; n < 200 && values.length < 3; n++) await pause(20);
  assert.deepEqual(values, ['0', '1', '2']);
  await past.cancel();
}

async function leases(client, root) {
  const lease = client.lease(3);
  await lease.put(root + 'l').value('x');
  await once(lease, 'keepaliveSucceeded');
  await pause(4000);
  assert.equal(await client.get(root + 'l').string(), 'x', 'a renewed lease lives');
  lease.release();
  const began = Date.now();
  while ((await client.get(root + 'l').string()) !== null) {
    assert.ok(Date.now() - began < 15000, 'an abandoned lease ends');
    await pause(50);
  }
  const other = client.lease(60);
  await other.put(root + 'l').value('y');
  await other.revoke();
  assert.equal(await client.get(root + 'l').string(), null, 'a revoke takes its keys');
}

async function locks(client, root) {
  let count = 0;
  const worker = async () => {
    for (let n = 0; n < 3; n++) {
      for (;;) {
        const lock = client.lock(root + 'lock').ttl(20);
        try {
          await lock.acquire();
        } catch {
          await pause(10);
          continue;
        }
        const seen = count;
        await pause(5);
        count = seen + 1;
        await lock.release();
        break;
      }
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  assert.equal(count, 9, 'no update under the lock is lost');
}

async function election(client, root) {
  const one = client.election(root + 'elect', 5);
  const two = client.election(root + 'elect', 5);
  const first = one.campaign('one');
  await once(first, 'elected');
  assert.equal(await two.leader(), 'one');
  const second = two.campaign('two');
  const won = once(second, 'elected');
  await first.proclaim('uno');
  assert.equal(await two.leader(), 'uno');
  await first.resign();
  await won;
  assert.equal(await one.leader(), 'two');
  await second.resign();
}

async function transactionalMemory(client, root) {
  await client.put(root + 'count').value('0');
  const add = () =>
    client.stm({ retries: 50 }).transact(async (tx) => {
      const seen = Number(await tx.get(root + 'count'));
      await tx.put(root + 'count').value(String(seen + 1));
    });
  await Promise.all([add(), add(), add(), add()]);
  assert.equal(await client.get(root + 'count').string(), '4');
}

const denied = /permission denied/;
const badLogin = /authentication failed, invalid user ID or password/;

async function permissions(client, root) {
  await assert.rejects(client.put('elsewhere').value('1').exec(), denied);
  await assert.rejects(client.get('elsewhere').exec(), denied);
  await assert.rejects(client.getAll().prefix('app').exec(), denied);
  await assert.rejects(client.delete().all().exec(), denied);
  const outside = client.if('elsewhere', 'Create', '==', 0).then(client.put(root + 'p').value('1'));
  await assert.rejects(outside.commit(), denied);
  assert.equal(await client.get(root + 'p').string(), null, 'a refused transaction does nothing');
  await assert.rejects(client.user('another').create('secret'), denied);
  await assert.rejects(client.auth.authDisable(), denied);
  const refuse = async (stranger, reason) => {
    await assert.rejects(stranger.get(root + 'p').exec(), reason);
    stranger.close();
  };
  await refuse(connect('app', 'guessed'), badLogin);
  await refuse(connect('nobody', 'guessed'), badLogin);
  await refuse(connect(), /user name is empty/);
  await refuse(connect('app', process.env.APP_PASSWORD, process.env.STRANGER_CA_FILE), /UNAVAILABLE/);
}

// What root makes, the new user may, and no more; what root takes away is gone at once.
async function usersAndRoles(admin, root) {
  const role = await admin.role('node-reader').create();
  const user = await admin.user('node-reader').create('reads');
  await role.grant({ permission: 'Read', range: admin.range({ prefix: root }) });
  await role.addUser(user);
  assert.deepEqual((await user.roles()).map((each) => each.name), ['node-reader']);
  const permissions = await role.permissions();
  assert.equal(permissions.length, 1);
  assert.equal(permissions[0].permission, 'Read');
  await admin.put(root + 'r').value('1');
  const reader = connect('node-reader', 'reads');
  assert.equal(await reader.get(root + 'r').string(), '1');
  await assert.rejects(reader.put(root + 'r').value('2').exec(), denied);
  await role.revoke(permissions[0]);
  await assert.rejects(reader.get(root + 'r').exec(), denied);
  reader.close();
  await user.delete();
  await role.delete();
  await assert.rejects(admin.user('node-reader').roles(), /user name not found/);
}

async function members(admin) {
  const { members } = await admin.cluster.memberList({ linearizable: true });
  assert.deepEqual(members.map((each) => each.name).sort(), ['member1', 'member2', 'member3']);
  assert.ok(members.every((each) => each.clientURLs[0].startsWith('https://')));
  const status = await admin.maintenance.status();
  assert.match(status.version, /^\d+\.\d+\.\d+/);
  assert.ok(members.some((each) => each.ID === status.leader), 'one of them leads');
}

async function main() {
  const client = connect('app', process.env.APP_PASSWORD);
  const admin = connect('root', process.env.ROOT_PASSWORD);
  const root = `app/node/${Date.now()}/`;
  await keyValue(client, root + 'kv/');
  await watch(client, admin, root + 'watch/');
  await leases(client, root + 'lease/');
  await locks(client, root + 'lock/');
  await election(client, root + 'election/');
  await transactionalMemory(client, root + 'stm/');
  await permissions(client, root + 'permissions/');
  await usersAndRoles(admin, root + 'users/');
  await members(admin);
  client.close();
  admin.close();
  console.log('ok: npm etcd3 1.1.2');
}

setTimeout(() => {
  console.error('FAILED: not done within 90 s');
  process.exit(1);
}, 90000).unref();

main().catch((failure) => {
  console.error('FAILED:', failure);
  process.exit(1);
});
