//! Watchers as somebody: whether they may be, and what they are told once permissions have changed.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::call;
use crate::differential::answer::Answer;
use crate::differential::call::{Call, Follow};
use crate::differential::client::Client;
use crate::differential::target::unary;
use crate::differential::told::message;
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};

/// Longer than an event takes on a busy machine.
const EVENT_DEADLINE: Duration = Duration::from_secs(3);

struct Watcher {
    /// The stream goes on for as long as more may be asked.
    _requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

async fn open(client: &Client, create: WatchCreateRequest) -> Result<Watcher, Status> {
    let (requests, outgoing) = mpsc::channel(4);
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let sent = requests.send(request).await;
    sent.map_err(|_| Status::unavailable("watch stream closed"))?;
    let answers = client.watch.clone().watch(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(Watcher { _requests: requests, answers })
}

impl Watcher {
    async fn hear(&mut self) -> Result<WatchResponse, Status> {
        match timeout(EVENT_DEADLINE, self.answers.message()).await {
            Err(_elapsed) => Err(Status::deadline_exceeded("nothing is heard")),
            Ok(heard) => heard?.ok_or_else(|| Status::unavailable("watch stream ended")),
        }
    }
}

fn heard(response: Result<WatchResponse, Status>) -> Answer {
    response.map_or_else(Answer::from, |response| message("Watch", response, |_| {}))
}

/// Creates a watcher, and tells the first answer.
pub(in crate::differential) async fn look(client: &Client, request: WatchCreateRequest) -> Answer {
    match open(client, request).await {
        Ok(mut watcher) => heard(watcher.hear().await),
        Err(status) => status.into(),
    }
}

/// Creates a watcher; if it is there, `root` makes a call and puts, and what is heard then is told as well.
pub(in crate::differential) async fn follow(
    client: &Client,
    root: &Client,
    followed: Follow,
) -> Answer {
    let mut watcher = match open(client, followed.watch).await {
        Ok(watcher) => watcher,
        Err(status) => return status.into(),
    };
    let first = watcher.hear().await;
    let there = first.as_ref().is_ok_and(|response| response.created && !response.canceled);
    let mut answers = vec![heard(first)];
    if there {
        answers.push(call::make(root, followed.meanwhile).await);
        let put = unary(root, Call::Put(followed.put)).await;
        let written = matches!(put, Answer::Put(_));
        answers.push(put);
        if written {
            answers.push(heard(watcher.hear().await));
        }
    }
    Answer::Several(answers)
}
