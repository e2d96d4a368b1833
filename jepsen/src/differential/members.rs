//! The calls of the Cluster service that change members, and how two clusters' members are told apart alike.
//!
//! An id is made of URLs and the hour, so no two clusters have the same. A script names a member by when it was first
//! heard of: [`nth_member`]; answers show that number, 1 for the member asked at the start.

use super::answer::Answer;
use super::call::OWN_MEMBER;
use super::client::Client;
use super::told::told_as;
use crate::member::PORTS;
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::{Member, MemberAddRequest, MemberUpdateRequest};

/// Stands for the peer URL of whichever member is asked.
pub(super) const OWN_URL: &str = "own";

const NTH_ZERO: u64 = u64::MAX - 1000;

/// Stands for the member that was heard of as the nth; 1 is the first.
pub(super) fn nth_member(nth: u64) -> u64 {
    NTH_ZERO + nth
}

/// One call that changes members.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MemberCall {
    Add(MemberAddRequest),
    Remove(u64),
    Update(MemberUpdateRequest),
    Promote(u64),
}

/// The members of one cluster, in the order in which they were first heard of.
#[derive(Debug, Default)]
pub(super) struct Roll {
    ids: Vec<u64>,
    /// The peer URL of the first.
    own_url: String,
}

impl Roll {
    pub(super) fn new(ids: Vec<u64>, own_url: String) -> Self {
        Self { ids, own_url }
    }

    /// The id that a script's number stands for; of members that are not known yet, one that nobody has.
    pub(super) fn id(&self, named: u64) -> u64 {
        let nth = if named == OWN_MEMBER { 1 } else { named.wrapping_sub(NTH_ZERO) };
        match self.ids.get((nth as usize).wrapping_sub(1)) {
            Some(id) => *id,
            None if nth < 900 => 0xdead_0000 + nth,
            None => named,
        }
    }

    fn urls(&self, urls: &mut [String]) {
        for url in urls {
            if url == OWN_URL {
                url.clone_from(&self.own_url);
            }
        }
    }

    /// Numbers in place of ids, in their order; etcd lists members by id.
    pub(super) fn named(&mut self, members: &mut [Member]) -> Result<(), String> {
        if !members.is_sorted_by_key(|member| member.id) {
            return Err(format!("members are not in order: {members:?}"));
        }
        for member in members.iter_mut() {
            self.name(member);
        }
        members.sort_by_key(|member| member.id);
        Ok(())
    }

    fn name(&mut self, member: &mut Member) {
        let known = self.ids.iter().position(|id| *id == member.id);
        let place = known.unwrap_or_else(|| {
            self.ids.push(member.id);
            self.ids.len() - 1
        });
        member.id = place as u64 + 1;
        for url in member.peer_ur_ls.iter_mut().chain(&mut member.client_ur_ls) {
            if let Some((host, port)) = url.rsplit_once(':')
                && port.parse::<u16>().is_ok_and(|port| PORTS.contains(&port))
            {
                *url = format!("{host}:PORT");
            }
        }
    }

    /// Makes a call.
    pub(super) async fn make(&mut self, client: &Client, call: MemberCall) -> Answer {
        let mut cluster = client.cluster.clone();
        let mut listed = Ok(());
        let answer = match call {
            MemberCall::Add(mut request) => {
                self.urls(&mut request.peer_ur_ls);
                let result = cluster.member_add(request).await;
                told_as("MemberAdd", result, |response| {
                    response.member.iter_mut().for_each(|member| self.name(member));
                    listed = self.named(&mut response.members);
                })
            }
            MemberCall::Remove(id) => {
                let request = pb::MemberRemoveRequest { id: self.id(id) };
                told_as("MemberRemove", cluster.member_remove(request).await, |response| {
                    listed = self.named(&mut response.members);
                })
            }
            MemberCall::Update(mut request) => {
                request.id = self.id(request.id);
                self.urls(&mut request.peer_ur_ls);
                told_as("MemberUpdate", cluster.member_update(request).await, |response| {
                    listed = self.named(&mut response.members);
                })
            }
            MemberCall::Promote(id) => {
                let request = pb::MemberPromoteRequest { id: self.id(id) };
                told_as("MemberPromote", cluster.member_promote(request).await, |response| {
                    listed = self.named(&mut response.members);
                })
            }
        };
        listed.err().map_or(answer, Answer::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_numbered_as_they_are_heard_of() {
        let mut roll = Roll::new(vec![70], String::new());
        let member = |id| Member { id, ..Member::default() };
        let mut listed = vec![member(20), member(70)];
        roll.named(&mut listed).unwrap();
        assert_eq!(listed.iter().map(|member| member.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            (roll.id(OWN_MEMBER), roll.id(nth_member(1)), roll.id(nth_member(2))),
            (70, 70, 20)
        );
        assert_eq!((roll.id(nth_member(3)), roll.id(5)), (0xdead_0003, 5));
        assert!(roll.named(&mut [member(2), member(1)]).is_err());
    }
}
