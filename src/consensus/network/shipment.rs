//! The words in which a whole state is sent, to and from protobuf.

use bytes::Bytes;
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::{
    Blank, LogPosition, PeerSnapshot, PeerSnapshotTaken, SnapshotPiece, SnapshotPlace, SnapshotTag,
    peer_snapshot, peer_snapshot_taken,
};

use super::frames::{BadFrame, ballot, raft_ballot};
use crate::consensus::types::{RaftVote, SnapshotLabel};

/// One step of a sender, which leads by `vote`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shipment {
    pub(crate) vote: RaftVote,
    pub(crate) step: Step,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Step {
    /// This is what would come.
    Offer(SnapshotLabel),
    /// The next bytes of it.
    Piece { session: u64, offset: u64, content: Bytes },
    /// That was all; asked again until it is installed.
    Finish { session: u64 },
}

// Never the content: it holds users' values.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Offer(label) => write!(f, "Offer({} bytes at {})", label.len, label.at),
            Step::Piece { session, offset, content } => {
                write!(f, "Piece({session:x}, {offset}, {} bytes)", content.len())
            }
            Step::Finish { session } => write!(f, "Finish({session:x})"),
        }
    }
}

/// What the receiver says to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Taken {
    /// Go on from `received`, by this session.
    Place { session: u64, received: u64 },
    /// All is here, and being checked and built.
    Preparing,
    /// It is in force, or something newer is; the receiver's vote.
    Installed(RaftVote),
    /// The receiver knows a higher vote.
    HigherVote(RaftVote),
    /// Not now, or not like this: offer it again.
    Refused(String),
    /// What was received is gone.
    Failed(String),
}

impl Shipment {
    pub(super) fn to_wire(&self) -> PeerSnapshot {
        let step = match &self.step {
            Step::Offer(label) => peer_snapshot::Step::Offer(SnapshotTag {
                at: Some(LogPosition { term: label.at.term.0, index: label.at.index }),
                membership: Some(label.membership.clone()),
                length: label.len,
                hash: label.hash,
            }),
            Step::Piece { session, offset, content } => {
                let content = content.clone();
                peer_snapshot::Step::Piece(SnapshotPiece {
                    session: *session,
                    offset: *offset,
                    content,
                })
            }
            Step::Finish { session } => peer_snapshot::Step::Finish(*session),
        };
        PeerSnapshot { vote: Some(ballot(&self.vote)), step: Some(step) }
    }

    pub(super) fn from_wire(from: PeerSnapshot) -> Result<Self, BadFrame> {
        let missing = |what: &str| BadFrame(format!("a whole state's frame carries no {what}"));
        let vote = raft_ballot(from.vote)?;
        if !vote.committed {
            return Err(BadFrame("a whole state comes from no leader".to_owned()));
        }
        let step = match from.step.ok_or_else(|| missing("step"))? {
            peer_snapshot::Step::Offer(tag) => {
                let at = tag.at.ok_or_else(|| missing("log position"))?;
                Step::Offer(SnapshotLabel {
                    at: LogId::new(at.term, at.index),
                    membership: tag.membership.ok_or_else(|| missing("membership"))?,
                    len: tag.length,
                    hash: tag.hash,
                })
            }
            peer_snapshot::Step::Piece(SnapshotPiece { session, offset, content }) => {
                Step::Piece { session, offset, content }
            }
            peer_snapshot::Step::Finish(session) => Step::Finish { session },
        };
        Ok(Shipment { vote, step })
    }
}

impl Taken {
    pub(super) fn to_wire(&self) -> PeerSnapshotTaken {
        let outcome = match self {
            Taken::Place { session, received } => {
                let place = SnapshotPlace { session: *session, received: *received };
                peer_snapshot_taken::Outcome::Place(place)
            }
            Taken::Preparing => peer_snapshot_taken::Outcome::Preparing(Blank {}),
            Taken::Installed(vote) => peer_snapshot_taken::Outcome::Installed(ballot(vote)),
            Taken::HigherVote(vote) => peer_snapshot_taken::Outcome::HigherVote(ballot(vote)),
            Taken::Refused(why) => peer_snapshot_taken::Outcome::Refused(why.as_str().into()),
            Taken::Failed(why) => peer_snapshot_taken::Outcome::Failed(why.as_str().into()),
        };
        PeerSnapshotTaken { outcome: Some(outcome) }
    }

    pub(super) fn from_wire(from: PeerSnapshotTaken) -> Result<Self, BadFrame> {
        Ok(match from.outcome {
            Some(peer_snapshot_taken::Outcome::Place(SnapshotPlace { session, received })) => {
                Taken::Place { session, received }
            }
            Some(peer_snapshot_taken::Outcome::Preparing(Blank {})) => Taken::Preparing,
            Some(peer_snapshot_taken::Outcome::Installed(vote)) => {
                Taken::Installed(raft_ballot(Some(vote))?)
            }
            Some(peer_snapshot_taken::Outcome::HigherVote(vote)) => {
                Taken::HigherVote(raft_ballot(Some(vote))?)
            }
            Some(peer_snapshot_taken::Outcome::Refused(why)) => Taken::Refused(why),
            Some(peer_snapshot_taken::Outcome::Failed(why)) => Taken::Failed(why),
            None => return Err(BadFrame("a whole state has no outcome".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::api::ids::MemberId;

    use super::super::frames::{Answer, Ask};
    use super::*;

    #[test]
    fn every_step_and_every_answer_crosses_the_wire() {
        let vote = RaftVote::new_committed(3, 9);
        let label = SnapshotLabel {
            at: LogId::new(2, 70),
            membership: Default::default(),
            len: 1 << 40,
            hash: u64::MAX,
        };
        let content = Bytes::from_static(b"abc");
        let steps = [
            Step::Offer(label),
            Step::Piece { session: 7, offset: 1 << 33, content },
            Step::Finish { session: u64::MAX },
        ];
        for step in steps {
            let shipment = Shipment { vote, step };
            let frame = Ask::Snapshot(shipment.clone()).encode();
            let Ok(Ask::Snapshot(back)) = Ask::decode(frame, MemberId(2)) else {
                panic!("a step stays one");
            };
            assert_eq!(back, shipment);
        }
        let answers = [
            Taken::Place { session: 1, received: 0 },
            Taken::Preparing,
            Taken::Installed(vote),
            Taken::HigherVote(vote),
            Taken::Refused("why".to_owned()),
            Taken::Failed(String::new()),
        ];
        for taken in answers {
            let Ok(Answer::Snapshot(back)) =
                Answer::decode(Answer::Snapshot(taken.clone()).encode())
            else {
                panic!("an answer stays one");
            };
            assert_eq!(back, taken);
        }
    }

    #[test]
    fn a_whole_state_of_a_mere_candidate_is_a_bad_frame() {
        let step = Step::Finish { session: 1 };
        let frame = Ask::Snapshot(Shipment { vote: RaftVote::new(3, 9), step }).encode();
        assert!(Ask::decode(frame, MemberId(2)).is_err());
    }
}
