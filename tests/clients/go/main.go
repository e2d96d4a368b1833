// Drives members over TLS with etcd's official Go client and its concurrency package.
//
// Every claim is checked; the first that fails ends the program with status 1.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func check(holds bool, claim string, seen ...any) {
	if !holds {
		fmt.Printf("FAILED: %s %v\n", claim, seen)
		os.Exit(1)
	}
}

func must[T any](value T, err error) T {
	check(err == nil, "no error", err)
	return value
}

var endpoints = strings.Split(os.Getenv("ENDPOINTS"), ",")

// Without a name there is no login.
func dial(name, password, authorityFile string) (*clientv3.Client, error) {
	authority := x509.NewCertPool()
	check(authority.AppendCertsFromPEM(must(os.ReadFile(authorityFile))), "the authority's certificate")
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 10 * time.Second, TLS: &tls.Config{RootCAs: authority},
		Username: name, Password: password,
	})
}

func connect(name, password string) *clientv3.Client {
	return must(dial(name, password, os.Getenv("CA_FILE")))
}

func app() *clientv3.Client { return connect("app", os.Getenv("APP_PASSWORD")) }

func keyValue(ctx context.Context, c *clientv3.Client, root string) {
	first := must(c.Put(ctx, root+"a", "1"))
	again := must(c.Put(ctx, root+"a", "2", clientv3.WithPrevKV()))
	check(again.Header.Revision == first.Header.Revision+1, "a put is one revision", again.Header)
	check(string(again.PrevKv.Value) == "1", "prev_kv is the old value", again.PrevKv)
	must(c.Put(ctx, root+"b", "3"))
	must(c.Put(ctx, root+"c", "4"))
	got := must(c.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(2)))
	check(got.Count == 3 && got.More && len(got.Kvs) == 2 && string(got.Kvs[0].Key) == root+"c", "prefix, sorted, cut", got)
	old := must(c.Get(ctx, root+"a", clientv3.WithRev(first.Header.Revision)))
	check(len(old.Kvs) == 1 && string(old.Kvs[0].Value) == "1", "a read of the past", old)
	keys := must(c.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	check(len(keys.Kvs) == 3 && len(keys.Kvs[0].Value) == 0, "keys only", keys)
	deleted := must(c.Delete(ctx, root+"b", clientv3.WithPrevKV()))
	check(deleted.Deleted == 1 && string(deleted.PrevKvs[0].Value) == "3", "delete tells what it deleted", deleted)
	_, err := c.Put(ctx, "", "x")
	check(errors.Is(err, rpctypes.ErrEmptyKey), "an empty key is refused by name", err)
	_, err = c.Get(ctx, root, clientv3.WithRev(1<<40))
	check(errors.Is(err, rpctypes.ErrFutureRev), "a future revision is refused by name", err)
	txn := must(c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value(root+"a"), "=", "2"), clientv3.Compare(clientv3.Version(root+"a"), ">", 1)).
		Then(clientv3.OpPut(root+"t", "then"), clientv3.OpGet(root+"t")).
		Else(clientv3.OpPut(root+"t", "else")).Commit())
	check(txn.Succeeded && string(txn.Responses[1].GetResponseRange().Kvs[0].Value) == "then", "a txn reads its own write", txn)
	txn = must(c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(root+"t"), "=", 0)).Else(clientv3.OpDelete(root, clientv3.WithPrefix())).Commit())
	check(!txn.Succeeded && txn.Responses[0].GetResponseDeleteRange().Deleted == 3, "the other branch", txn)
	_, err = c.Txn(ctx).Then(clientv3.OpPut(root+"d", "1"), clientv3.OpPut(root+"d", "2")).Commit()
	check(errors.Is(err, rpctypes.ErrDuplicateKey), "a key put twice is refused by name", err)
}

func watch(ctx context.Context, c, admin *clientv3.Client, root string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := must(c.Put(ctx, root+"w", "0")).Header.Revision
	live := c.Watch(clientv3.WithRequireLeader(ctx), root, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	check((<-live).Created, "created comes first")
	for n := 1; n <= 5; n++ {
		must(admin.Put(ctx, root+"w", fmt.Sprint(n)))
	}
	must(admin.Delete(ctx, root+"w"))
	seen := 0
	for seen < 6 {
		for _, event := range (<-live).Events {
			seen++
			check(event.PrevKv != nil && string(event.PrevKv.Value) == fmt.Sprint(seen-1), "prev_kv of event", seen, event)
			check((event.Type == clientv3.EventTypeDelete) == (seen == 6), "the delete comes last", event)
		}
	}
	past := c.Watch(ctx, root+"w", clientv3.WithRev(start), clientv3.WithFilterDelete())
	values := ""
	for len(values) < 6 {
		for _, event := range (<-past).Events {
			values += string(event.Kv.Value)
		}
	}
	check(values == "012345", "history from a revision", values)
	check(c.RequestProgress(ctx) == nil, "progress can be asked for")
	now := must(c.Get(ctx, root+"w")).Header.Revision
	_, err := c.Compact(ctx, now)
	check(errors.Is(err, rpctypes.ErrPermissionDenied), "compaction is root's", err)
	must(admin.Compact(ctx, now))
	compacted := <-c.Watch(ctx, root+"w", clientv3.WithRev(start))
	check(errors.Is(compacted.Err(), rpctypes.ErrCompacted) && compacted.CompactRevision == now, "a compacted start is told", compacted)
	_, err = c.Get(ctx, root+"w", clientv3.WithRev(start))
	check(errors.Is(err, rpctypes.ErrCompacted), "a compacted read is refused by name", err)
}

func leases(ctx context.Context, c *clientv3.Client, root string) {
	lease := must(c.Grant(ctx, 3)).ID
	must(c.Put(ctx, root+"l", "x", clientv3.WithLease(lease)))
	keepAlive, stop := context.WithCancel(ctx)
	renewals := must(c.KeepAlive(keepAlive, lease))
	began := time.Now()
	for time.Since(began) < 5*time.Second {
		renewal, open := <-renewals
		check(open && renewal.TTL == 3, "a renewal tells the TTL", renewal)
	}
	ttl := must(c.TimeToLive(ctx, lease, clientv3.WithAttachedKeys()))
	check(ttl.GrantedTTL == 3 && ttl.TTL >= 0 && len(ttl.Keys) == 1, "time to live with keys", ttl)
	stop()
	began = time.Now()
	for must(c.Get(ctx, root+"l")).Count != 0 {
		check(time.Since(began) < 15*time.Second, "an abandoned lease ends")
		time.Sleep(50 * time.Millisecond)
	}
	gone := must(c.TimeToLive(ctx, lease))
	check(gone.TTL == -1, "a lease that ended has TTL -1", gone)
	_, err := c.Revoke(ctx, lease)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "a revoke of none is refused by name", err)
	other := must(c.Grant(ctx, 60)).ID
	must(c.Put(ctx, root+"l", "y", clientv3.WithLease(other)))
	must(c.Revoke(ctx, other))
	check(must(c.Get(ctx, root+"l")).Count == 0, "a revoke takes its keys")
}

// The mutex guards a read-modify-write without comparing revisions; lost updates would show.
func mutex(ctx context.Context, root string) {
	const clients, rounds = 4, 5
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			c := app()
			defer c.Close()
			session := must(concurrency.NewSession(c, concurrency.WithTTL(10)))
			defer session.Close()
			lock := concurrency.NewMutex(session, root+"lock")
			for range rounds {
				err := lock.Lock(ctx)
				check(err == nil, "the lock is had", err)
				count := 0
				if got := must(c.Get(ctx, root+"count")); got.Count == 1 {
					fmt.Sscan(string(got.Kvs[0].Value), &count)
				}
				must(c.Put(ctx, root+"count", fmt.Sprint(count+1)))
				err = lock.Unlock(ctx)
				check(err == nil, "the lock is given back", err)
			}
		})
	}
	all.Wait()
	c := app()
	defer c.Close()
	got := must(c.Get(ctx, root+"count"))
	check(string(got.Kvs[0].Value) == fmt.Sprint(clients*rounds), "no update under the lock is lost", got)
}

func election(ctx context.Context, c *clientv3.Client, root string) {
	first := must(concurrency.NewSession(c, concurrency.WithTTL(5)))
	second := must(concurrency.NewSession(c, concurrency.WithTTL(5)))
	one, two := concurrency.NewElection(first, root+"elect"), concurrency.NewElection(second, root+"elect")
	check(one.Campaign(ctx, "one") == nil, "the first wins")
	check(string(must(one.Leader(ctx)).Kvs[0].Value) == "one", "the first leads")
	won := make(chan error, 1)
	go func() { won <- two.Campaign(ctx, "two") }()
	check(one.Proclaim(ctx, "uno") == nil, "the leader proclaims")
	check(string(must(two.Leader(ctx)).Kvs[0].Value) == "uno", "all see the proclamation")
	check(one.Resign(ctx) == nil, "the leader resigns")
	check(<-won == nil, "the second wins then")
	check(string(must(one.Leader(ctx)).Kvs[0].Value) == "two", "the second leads")
	check(first.Close() == nil && second.Close() == nil, "sessions close")
}

func transactionalMemory(ctx context.Context, c *clientv3.Client, root string) {
	must(c.Put(ctx, root+"from", "100"))
	must(c.Put(ctx, root+"to", "0"))
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
				var from, to int
				fmt.Sscan(stm.Get(root+"from"), &from)
				fmt.Sscan(stm.Get(root+"to"), &to)
				stm.Put(root+"from", fmt.Sprint(from-10))
				stm.Put(root+"to", fmt.Sprint(to+10))
				return nil
			}, concurrency.WithIsolation(concurrency.SerializableSnapshot))
			check(err == nil, "a transaction commits in the end", err)
		})
	}
	all.Wait()
	check(string(must(c.Get(ctx, root+"from")).Kvs[0].Value) == "50", "five transfers happened")
	check(string(must(c.Get(ctx, root+"to")).Kvs[0].Value) == "50", "five transfers arrived")
}

func permissions(ctx context.Context, c *clientv3.Client, root string) {
	denied := func(err error) { check(errors.Is(err, rpctypes.ErrPermissionDenied), "permission is denied", err) }
	_, err := c.Put(ctx, "elsewhere", "1")
	denied(err)
	_, err = c.Get(ctx, "elsewhere")
	denied(err)
	_, err = c.Get(ctx, "app", clientv3.WithPrefix())
	denied(err)
	_, err = c.Delete(ctx, "", clientv3.WithPrefix())
	denied(err)
	_, err = c.Txn(ctx).If(clientv3.Compare(clientv3.Version("elsewhere"), "=", 0)).Then(clientv3.OpPut(root+"p", "1")).Commit()
	denied(err)
	nested := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("elsewhere")}, nil)
	_, err = c.Txn(ctx).Then(clientv3.OpPut(root+"p", "1"), nested).Commit()
	denied(err)
	check(must(c.Get(ctx, root+"p")).Count == 0, "a refused transaction does nothing")
	watched := <-c.Watch(ctx, "elsewhere")
	check(watched.Canceled && strings.Contains(watched.Err().Error(), "permission denied"), "a watch is refused", watched.Err())
	_, err = c.UserList(ctx)
	denied(err)
	_, err = c.MemberAdd(ctx, []string{"https://127.0.0.1:23994"})
	denied(err)
	_, err = c.Defragment(ctx, endpoints[0])
	denied(err)
	_, err = c.AuthDisable(ctx)
	denied(err)
	for _, name := range []string{"app", "nobody"} {
		_, err = dial(name, "guessed", os.Getenv("CA_FILE"))
		check(errors.Is(err, rpctypes.ErrAuthFailed), "a bad login is refused by name", err)
	}
	stranger := connect("", "")
	defer stranger.Close()
	_, err = stranger.Get(ctx, root)
	check(errors.Is(err, rpctypes.ErrUserEmpty), "a stranger is refused by name", err)
	untrusting := must(dial("", "", os.Getenv("STRANGER_CA_FILE")))
	defer untrusting.Close()
	soon, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = untrusting.Get(soon, root)
	check(err != nil && !errors.Is(err, rpctypes.ErrUserEmpty), "another authority's certificate is not trusted", err)
}

// What root makes, the new user may, and no more; what root takes away is gone at once.
func usersAndRoles(ctx context.Context, admin *clientv3.Client, root string) {
	must(admin.RoleAdd(ctx, "go-reader"))
	read := clientv3.PermissionType(clientv3.PermRead)
	must(admin.RoleGrantPermission(ctx, "go-reader", root, clientv3.GetPrefixRangeEnd(root), read))
	must(admin.UserAdd(ctx, "go-reader", "reads"))
	must(admin.UserGrantRole(ctx, "go-reader", "go-reader"))
	check(len(must(admin.UserGet(ctx, "go-reader")).Roles) == 1, "a user with a role")
	check(string(must(admin.RoleGet(ctx, "go-reader")).Perm[0].Key) == root, "a role with a range")
	must(admin.Put(ctx, root+"r", "1"))
	reader := connect("go-reader", "reads")
	defer reader.Close()
	check(must(reader.Get(ctx, root+"r")).Count == 1, "a reader reads")
	_, err := reader.Put(ctx, root+"r", "2")
	check(errors.Is(err, rpctypes.ErrPermissionDenied), "a reader does not write", err)
	must(admin.UserRevokeRole(ctx, "go-reader", "go-reader"))
	_, err = reader.Get(ctx, root+"r")
	check(errors.Is(err, rpctypes.ErrPermissionDenied), "nor reads without the role", err)
	must(admin.UserDelete(ctx, "go-reader"))
	must(admin.RoleDelete(ctx, "go-reader"))
	_, err = admin.UserGet(ctx, "go-reader")
	check(errors.Is(err, rpctypes.ErrUserNotFound), "no such user any more", err)
	check(must(admin.AuthStatus(ctx)).Enabled, "authentication is on")
}

func members(ctx context.Context, admin *clientv3.Client) {
	var names []string
	for _, member := range must(admin.MemberList(ctx)).Members {
		names = append(names, member.Name)
		check(strings.HasPrefix(member.ClientURLs[0], "https://"), "members tell their URLs", member)
	}
	sort.Strings(names)
	check(strings.Join(names, " ") == "member1 member2 member3", "three members", names)
	leader := must(admin.Status(ctx, endpoints[0])).Leader
	for _, endpoint := range endpoints {
		check(must(admin.Status(ctx, endpoint)).Leader == leader, "all know the same leader")
	}
	added := must(admin.MemberAddAsLearner(ctx, []string{"https://127.0.0.1:23994"}))
	check(len(added.Members) == 4 && added.Member.IsLearner, "a learner is added", added)
	_, err := admin.MemberPromote(ctx, added.Member.ID)
	check(errors.Is(err, rpctypes.ErrMemberLearnerNotReady), "a learner that never came is not promoted", err)
	check(len(must(admin.MemberRemove(ctx, added.Member.ID)).Members) == 3, "the learner is removed")
	_, err = admin.MemberRemove(ctx, added.Member.ID)
	check(errors.Is(err, rpctypes.ErrMemberNotFound), "a removed member is refused by name", err)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	c, admin := app(), connect("root", os.Getenv("ROOT_PASSWORD"))
	defer c.Close()
	defer admin.Close()
	root := fmt.Sprintf("app/go/%d/", time.Now().UnixNano())
	keyValue(ctx, c, root+"kv/")
	watch(ctx, c, admin, root+"watch/")
	leases(ctx, c, root+"lease/")
	mutex(ctx, root+"mutex/")
	election(ctx, c, root+"election/")
	transactionalMemory(ctx, c, root+"stm/")
	permissions(ctx, c, root+"permissions/")
	usersAndRoles(ctx, admin, root+"users/")
	members(ctx, admin)
	fmt.Println("ok: go clientv3", clientVersion)
}

const clientVersion = "3.7.1"
