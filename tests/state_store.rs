//! The library's one suite: every claim of [`quorate::fleet::store::StateStore`], on every way to reach a store.
//!
//! ```text
//!   suite (one claim a function, by the trait alone) x rig: in this process, over gRPC to a server of this process,
//!                                                          over gRPC to a real etcd (ETCD_BIN)
//!                                                    x runtime: one thread, several
//! ```
//!
//! Without `ETCD_BIN` the claims about a real etcd say so and are not tried. `etcdctl` is looked for beside it.
#![expect(clippy::print_stderr, reason = "what was not tried is told")]

#[path = "state_store/elections.rs"]
mod elections;
#[path = "state_store/rig.rs"]
mod rig;
#[path = "state_store/severed.rs"]
mod severed;
#[path = "state_store/suite.rs"]
mod suite;

use rig::Rig;

/// One test for each claim, rig and runtime.
macro_rules! conformance {
    ($($part:ident::$claim:ident,)+) => {
        mod in_process {
            $(#[tokio::test]
            async fn $claim() {
                super::$part::$claim(&super::Rig::in_process().await).await;
            })+
        }
        mod in_process_on_threads {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$part::$claim(&super::Rig::in_process().await).await;
            })+
        }
        mod remote {
            $(#[tokio::test]
            async fn $claim() {
                super::$part::$claim(&super::Rig::remote().await).await;
            })+
        }
        mod remote_on_threads {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$part::$claim(&super::Rig::remote().await).await;
            })+
        }
        mod remote_to_etcd {
            $(#[tokio::test]
            async fn $claim() {
                if let Some(rig) = super::Rig::etcd().await {
                    super::$part::$claim(&rig).await;
                }
            })+
        }
    };
}

conformance! {
    suite::s3_3_get_after_put_gives_the_value_and_the_version,
    suite::s3_3_a_missing_key_is_a_typed_not_found,
    suite::s3_4_list_is_sorted_and_exact,
    suite::s3_5_delete_removes_and_a_missing_key_is_no_error,
    suite::s3_6_watch_tells_puts_and_deletes_with_what_was_before,
    suite::s3_6_watch_from_a_revision_tells_all_since,
    suite::s3_6_watch_ends_when_the_store_is_closed,
    suite::s3_7_a_transaction_does_one_side_or_the_other,
    suite::s3_7_version_zero_means_that_a_key_must_not_exist,
    suite::s3_7_transactions_are_atomic_among_many,
    suite::s3_1_a_closed_store_refuses_every_call,
    elections::s3_8_campaign_blocks_until_the_lead_is_free,
    elections::s3_8_a_guard_ends_when_its_key_is_deleted,
    elections::s3_8_a_guard_that_nobody_answers_ends_before_another_wins,
    elections::s3_8_a_campaign_that_is_dropped_leaves_the_line,
    elections::s3_9_resigning_frees_at_once_and_the_leader_is_told,
    elections::s3_9_a_second_candidate_waits_while_the_first_renews,
    elections::s3_10_closing_hands_over_within_half_a_second,
    elections::s3_11_election_keys_have_etcds_shape,
    elections::s3_12_a_deposed_leaders_late_write_is_refused,
}

/// A3.5: `etcdctl elect` and ours stand in one line, at our server and at etcd's.
mod a3_5 {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn etcdctl_and_ours_contend_for_one_name_at_our_server() {
        super::elections::contend_with_etcdctl(&super::Rig::remote().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn etcdctl_and_ours_contend_for_one_name_at_etcd() {
        if let Some(rig) = super::Rig::etcd().await {
            super::elections::contend_with_etcdctl(&rig).await;
        }
    }
}
