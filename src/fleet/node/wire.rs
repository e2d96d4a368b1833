//! This node as a client of others: of those that a token names, and of those that it has certificates for.
//!
//! ```text
//!   ask_again   pinned to the token's authority ── one address after the other, until somebody has answered ──> answer
//!   ask_node    certificates of the fleet both ways ──> answer        ask_bare   the same, without an envelope
//! ```

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::directory::StateDirectory;
use crate::fleet::api::server::Envelope;
use crate::fleet::error::FleetError;
use crate::fleet::pki::{CertificateName, Folder};
use crate::fleet::tokens::JoinToken;
use crate::support::http_client::{Answer, Asking, HttpClient, HttpError, Target};
use crate::support::tls::{Connector, Protocol, Side, TlsSettings};
use crate::support::urls::Url;

/// Longest wait for one answer; callers that have less time wait less.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(120);

/// Longest wait for one answer to what may be asked again: whoever is asked next goes on with what this one began.
const ANSWER_OR_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// Between two rounds of asking again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(300);

/// Why another node's answer is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// It was not reached, or its answer was not.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It refused, in its own words.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Of the envelope.
        error: String,
    },
    /// Its answer, or our own certificates, cannot be used.
    #[error("{0}")]
    Unfit(String),
}

impl Unanswered {
    /// Whether somebody else may be asked the same.
    fn nothing_was_done(&self) -> bool {
        match self {
            Unanswered::Http(why) => why.nothing_was_done(),
            Unanswered::Refused { .. } | Unanswered::Unfit(_) => false,
        }
    }

    /// For whoever holds a token: its authority may be one of the past.
    fn in_words(&self) -> String {
        let advice = match self {
            Unanswered::Http(HttpError::Tls { .. }) => {
                ". If the cluster's authority was changed since the token was given, a new one is \
                 needed: get-join-token"
            }
            Unanswered::Http(_) | Unanswered::Refused { .. } | Unanswered::Unfit(_) => "",
        };
        format!("{self}{advice}")
    }

    /// Whether the same is to be asked again: it may have been done, or may be by and by.
    fn may_pass(&self) -> bool {
        match self {
            Unanswered::Http(_) => true,
            // Part of no fleet: it did nothing.
            Unanswered::Refused { error, .. }
                if *error == FleetError::NotInitialized.to_string() =>
            {
                false
            }
            Unanswered::Refused { code, .. } => *code == 503,
            Unanswered::Unfit(_) => false,
        }
    }
}

/// Posts to the token's addresses, one after the other, whoever is there and signed for by the token's authority. What is
/// asked for may be asked for again: a node whose answer was lost is asked once more, or another one is. Fails if it is
/// certain that nobody did anything; otherwise it is for whoever calls to give up.
pub(super) async fn ask_again<T: DeserializeOwned>(
    token: &JoinToken,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &impl Serialize,
) -> Result<T, FleetError> {
    let connector = pinned(token)?;
    let mut may_be_done = false;
    loop {
        let mut last = NO_ADDRESS.to_owned();
        for address in &token.addresses {
            let target = Target::Tls { address: address.clone(), connector: connector.clone() };
            let client = HttpClient::new(target);
            let asking = headers.iter().fold(client.post(path).json(body), |asking, header| {
                asking.header(header.0, header.1)
            });
            match told(asking, ANSWER_OR_AGAIN).await {
                Ok(answer) => return Ok(answer),
                Err(why) if why.may_pass() => {
                    tracing::warn!(address, error = %why, "a node that the token names has not answered");
                    may_be_done |= !why.nothing_was_done();
                    last = why.in_words();
                }
                Err(why) => return Err(refusal(why)),
            }
        }
        if !may_be_done {
            return Err(FleetError::JoinFailed(last));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

const NO_ADDRESS: &str = "the token names no address";

/// Speaks with whoever is signed for by the token's authority.
fn pinned(token: &JoinToken) -> Result<Connector, FleetError> {
    let settings =
        TlsSettings { pinned_authority: Some(token.fingerprint), ..TlsSettings::default() };
    let side = Side::open(&settings, Protocol::default(), None);
    Ok(side.map_err(FleetError::Internal)?.connector())
}

/// What another node refuses, as this one passes it on.
fn refusal(why: Unanswered) -> FleetError {
    match why {
        Unanswered::Refused { error, .. } if error == FleetError::AnotherJoins.to_string() => {
            FleetError::AnotherJoins
        }
        Unanswered::Refused { .. } | Unanswered::Http(_) | Unanswered::Unfit(_) => {
            FleetError::JoinFailed(why.to_string())
        }
    }
}

/// Asks the API of another node, with the certificates of this one.
pub(super) async fn ask_node<T: DeserializeOwned>(
    directory: &StateDirectory,
    address: &str,
    method: Method,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<T, Unanswered> {
    let client = client(directory, address)?;
    let asking = client.ask(method, path);
    let asking = match body {
        Some(body) => asking.json(body),
        None => asking,
    };
    told(asking, ANSWER).await
}

/// Posts to a client URL of a member.
pub(super) async fn ask_member<T: DeserializeOwned>(
    directory: &StateDirectory,
    url: &str,
    path: &str,
    body: &(impl Serialize + Sync),
) -> Result<T, Unanswered> {
    let parsed = crate::support::urls::parse_list(url).map_err(Unanswered::Unfit)?;
    let Some(Url { host, .. }) = parsed.first() else {
        return Err(Unanswered::Unfit(format!("{url} is no URL")));
    };
    let answer = client(directory, host)?.post(path).json(body).send(ANSWER).await?;
    Ok(answer.json()?)
}

fn client(directory: &StateDirectory, address: &str) -> Result<HttpClient, Unanswered> {
    let folder =
        Folder::open(&directory.pki()).map_err(|why| Unanswered::Unfit(why.to_string()))?;
    let settings = folder.tls(CertificateName::Client, CertificateName::Client);
    let side = Side::open(&settings, Protocol::default(), None).map_err(Unanswered::Unfit)?;
    Ok(HttpClient::new(Target::Tls { address: address.to_owned(), connector: side.connector() }))
}

async fn told<T: DeserializeOwned>(
    asking: Asking<'_>,
    limit: std::time::Duration,
) -> Result<T, Unanswered> {
    match asking.send(limit).await {
        Ok(answer) => metadata(&answer),
        Err(HttpError::Status { status, body, .. }) => {
            let said: Result<Envelope, _> = serde_json::from_slice(&body);
            let error = said.map_or_else(|_| format!("HTTP status {status}"), |said| said.error);
            Err(Unanswered::Refused { code: status, error })
        }
        Err(why) => Err(why.into()),
    }
}

fn metadata<T: DeserializeOwned>(answer: &Answer) -> Result<T, Unanswered> {
    let envelope: Envelope = answer.json()?;
    serde_json::from_value(envelope.metadata)
        .map_err(|_| Unanswered::Unfit("the answer is not what was expected".to_owned()))
}
