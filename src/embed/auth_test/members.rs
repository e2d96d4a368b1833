//! Several members: a token of one is a token of all, and who asks goes along with what is asked.

use super::super::cluster_tests::{Cluster, LONG};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_one_member_gave_is_known_to_all() {
    let mut cluster = Cluster::of(3);
    for config in &mut cluster.configs {
        config.cluster.bcrypt_cost = 4;
    }
    cluster.start_all(&[0, 1, 2]).await;
    cluster.leader(LONG).await;
    let mut channels = Vec::new();
    for (_, server) in cluster.servers() {
        tokio::time::timeout(LONG, server.ready()).await.expect("there is a leader");
        channels.push(connect(server).await);
    }
    let root = enable(&channels[0]).await;
    let mut ann = add_user(&channels[1], &root, "ann", &[(Type::Readwrite, "a", "b")]).await;
    for (n, channel) in channels.iter().enumerate() {
        let mut kv = KvClient::new(channel.clone());
        kv.put(with(&ann, put(&format!("a{n}"), "1"))).await.unwrap();
        let read = pb::RangeRequest { serializable: true, ..get("a0") };
        kv.range(with(&ann, read)).await.unwrap();
        assert_eq!(refused(kv.put(with(&ann, put("z", "1"))).await), denied());
        assert_eq!(refused(kv.range(with(&ann, get("z"))).await), denied());
        assert_eq!(refused(kv.put(put("a", "1")).await), user_empty());
        // It was taken away by way of another member, and is void here once that was answered.
        let token = login(channel, "ann", "secret").await.unwrap();
        let elsewhere = &channels[(n + 1) % channels.len()];
        let request = with(&root, change_password("ann", "secret"));
        AuthClient::new(elsewhere.clone()).user_change_password(request).await.unwrap();
        assert_eq!(refused(kv.range(with(&token, get("a0"))).await), invalid_token());
        ann = login(elsewhere, "ann", "secret").await.unwrap();
        kv.put(with(&ann, put(&format!("a{n}"), "2"))).await.unwrap();
    }
    cluster.stop_all().await;
}
