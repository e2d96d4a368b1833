//! What waits to be sent to one member for one purpose, and what waits to be answered.
//!
//! ```text
//!   push ──> unsent ──(writer)──> waiting ──(reader: in order)──> the caller
//!                 close: all of them fail
//! ```
//!
//! **Invariant:** a frame is sent at most once, in the order of `push`, and answers come in that order.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::ids::GroupId;
use tokio::sync::{Notify, oneshot};

use super::frame::{Frame, Kind, Outbox};

/// How an exchange ended. `Err` says whether the frame may have been seen.
pub(super) type Outcome = Result<Bytes, Failed>;

/// An exchange has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The frame was not looked at.
    Unseen(String),
    /// It may have been.
    Perhaps(String),
}

/// How much may be under way at once; what is more is refused at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) frames: usize,
    /// One frame is taken however long it is.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Pipe {
    room: Room,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    unsent: VecDeque<(GroupId, Bytes, oneshot::Sender<Outcome>)>,
    waiting: VecDeque<(u64, usize, oneshot::Sender<Outcome>)>,
    /// Of both.
    bytes: usize,
    last_number: u64,
    closed: Option<String>,
}

/// An answer that was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answer {0} is out of step")]
pub(super) struct OutOfStep(u64);

impl Pipe {
    pub(super) fn new(room: Room) -> Self {
        Pipe { room, state: Mutex::default(), wake: Notify::new() }
    }

    /// Queues a frame.
    pub(super) fn push(
        &self,
        group: GroupId,
        frame: Bytes,
    ) -> Result<oneshot::Receiver<Outcome>, Failed> {
        let mut state = self.state.lock();
        if let Some(why) = &state.closed {
            return Err(Failed::Unseen(why.clone()));
        }
        let under_way = state.unsent.len() + state.waiting.len();
        let too_long = state.bytes + frame.len() > self.room.bytes;
        if under_way > 0 && (under_way >= self.room.frames || too_long) {
            return Err(Failed::Unseen("too much is under way to it".to_owned()));
        }
        state.bytes += frame.len();
        let (tell, told) = oneshot::channel();
        state.unsent.push_back((group, frame, tell));
        drop(state);
        self.wake.notify_one();
        Ok(told)
    }

    /// Resolves when there may be something to send, or the pipe was closed.
    pub(super) async fn stirred(&self) {
        self.wake.notified().await;
    }

    /// Moves frames to `out` until it holds `up_to` bytes. False once the pipe is closed.
    pub(super) fn drain(&self, out: &mut Outbox, up_to: usize) -> bool {
        let mut state = self.state.lock();
        while out.len() < up_to {
            let Some((group, payload, tell)) = state.unsent.pop_front() else { break };
            if tell.is_closed() {
                // Nobody waits any more: not worth sending.
                state.bytes -= payload.len();
                continue;
            }
            state.last_number += 1;
            let number = state.last_number;
            state.waiting.push_back((number, payload.len(), tell));
            out.put(Frame { kind: Kind::Ask, group, number, payload });
        }
        if !state.unsent.is_empty() {
            self.wake.notify_one();
        }
        state.closed.is_none()
    }

    /// Hands an answer to who waits for it.
    pub(super) fn settle(&self, number: u64, outcome: Outcome) -> Result<(), OutOfStep> {
        let mut state = self.state.lock();
        if state.waiting.front().is_none_or(|(first, ..)| *first != number) {
            return Err(OutOfStep(number));
        }
        let waiter = state.waiting.pop_front();
        if let Some((_, bytes, tell)) = waiter {
            state.bytes -= bytes;
            drop(state);
            // Whoever asked may have gone.
            drop(tell.send(outcome));
        }
        Ok(())
    }

    /// Fails everything under way, and every later push.
    pub(super) fn close(&self, why: &str) {
        let state = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return;
            }
            let closed = State { closed: Some(why.to_owned()), ..State::default() };
            std::mem::replace(&mut *state, closed)
        };
        for (.., tell) in state.waiting {
            drop(tell.send(Err(Failed::Perhaps(why.to_owned()))));
        }
        for (.., tell) in state.unsent {
            drop(tell.send(Err(Failed::Unseen(why.to_owned()))));
        }
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { frames: 3, bytes: 10 };

    fn push(pipe: &Pipe, frame: &'static [u8]) -> Result<oneshot::Receiver<Outcome>, Failed> {
        pipe.push(GroupId(0), Bytes::from_static(frame))
    }

    #[tokio::test]
    async fn answers_go_to_who_asked_in_order_and_another_order_is_out_of_step() {
        let pipe = Pipe::new(ROOM);
        let (one, two) = (push(&pipe, b"1").unwrap(), push(&pipe, b"2").unwrap());
        let mut out = Outbox::default();
        assert_eq!(pipe.settle(1, Ok(Bytes::new())), Err(OutOfStep(1)), "it was not sent yet");
        assert!(pipe.drain(&mut out, 1 << 10));
        assert_eq!(pipe.settle(2, Ok(Bytes::new())), Err(OutOfStep(2)));
        pipe.settle(1, Ok(Bytes::from_static(b"a"))).unwrap();
        pipe.settle(2, Err(Failed::Perhaps("x".to_owned()))).unwrap();
        assert_eq!(one.await.unwrap(), Ok(Bytes::from_static(b"a")));
        assert_eq!(two.await.unwrap(), Err(Failed::Perhaps("x".to_owned())));
    }

    #[tokio::test]
    async fn what_was_sent_is_in_doubt_when_the_pipe_closes_and_what_was_not_is_not() {
        let pipe = Pipe::new(ROOM);
        let sent = push(&pipe, b"1").unwrap();
        assert!(pipe.drain(&mut Outbox::default(), 1 << 10));
        let unsent = push(&pipe, b"2").unwrap();
        pipe.close("gone");
        pipe.close("again");
        assert_eq!(sent.await.unwrap(), Err(Failed::Perhaps("gone".to_owned())));
        assert_eq!(unsent.await.unwrap(), Err(Failed::Unseen("gone".to_owned())));
        assert_eq!(push(&pipe, b"3").unwrap_err(), Failed::Unseen("gone".to_owned()));
        assert!(!pipe.drain(&mut Outbox::default(), 1 << 10));
    }

    #[test]
    fn a_full_pipe_refuses_and_one_long_frame_always_fits() {
        let pipe = Pipe::new(ROOM);
        let long = push(&pipe, b"longer than ten bytes").unwrap();
        assert!(push(&pipe, b"").is_err(), "the bytes are used up");
        drop(long);
        let mut out = Outbox::default();
        pipe.drain(&mut out, 1 << 10);
        assert!(out.is_empty(), "nobody waits for it");
        let kept: Vec<_> = (0..3).map(|_| push(&pipe, b"1").unwrap()).collect();
        assert!(push(&pipe, b"1").is_err(), "three frames are under way");
        drop(kept);
    }
}
