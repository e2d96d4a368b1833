//! Who should be refused is, on both ports, and the log has one line for each: etcd's text, the address, and why.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::{STRICT_HOSTS, Trial, of_client, of_member};
use crate::member::Member;
use crate::tls::{Authority, Dialer, Made, Speaks, Trusting, Wanted, address_of, ask_plainly};

const REQUEST: &str = "GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// The line may come after the verdict.
const LOGGED_BY: Duration = Duration::from_secs(3);
/// A second line would have come by then.
const ALONE_FOR: Duration = Duration::from_millis(300);

/// How one connects, and why it is refused.
struct Case {
    what: &'static str,
    shows: Shows,
    /// A part of the log line's `error`; `None`: it is served.
    why: Option<&'static str>,
}

enum Shows {
    Certificate(Made),
    Nothing,
    /// No TLS at all.
    Plain,
}

/// One port of one member.
struct Port<'a> {
    name: String,
    address: SocketAddr,
    text: &'static str,
    member: &'a Member,
    cases: Vec<Case>,
}

/// Connects in every wrong way.
pub(super) async fn check(trial: &Trial, findings: &mut Vec<String>) -> Result<()> {
    let mut refused = 0;
    for port in ports(trial)? {
        for case in &port.cases {
            let before = findings.len();
            port.check(trial, case, findings).await?;
            refused += usize::from(case.why.is_some() && findings.len() == before);
        }
    }
    println!("{refused} connections refused with one line each");
    Ok(())
}

fn ports(trial: &Trial) -> Result<Vec<Port<'_>>> {
    let stranger = Authority::new("stranger")?;
    let mut strangers = vec![("a stranger's", &stranger)];
    strangers.extend(trial.retired.iter().map(|retired| ("the old authority's", retired)));
    let mut ports = Vec::new();
    for (nth, secured) in trial.members.iter().enumerate().take(STRICT_HOSTS + 1) {
        let strict = nth == STRICT_HOSTS;
        let member = secured.member.as_ref().context("it runs")?;
        let (name, authority) = (&secured.spec.name, &trial.authority);
        // Whoever may connect, and what keeps others with good certificates out.
        let mut cases = cases(authority, &strangers, &of_client())?;
        let revoked = revoked(&mut cases, authority, &of_client())?;
        secured.server.revoke(&authority.revoke(&[revoked])?)?;
        if strict {
            let named = Wanted::named("client").of_host("elsewhere.example");
            cases.push(Case::certificate("another host", authority.sign(&named)?, NOT_ALLOWED));
        }
        ports.push(Port {
            name: format!("{name}'s client port"),
            address: address_of(&secured.spec.endpoint())?,
            text: "rejected connection on client endpoint",
            member,
            cases,
        });
        let mut cases = self::cases(authority, &strangers, &of_member())?;
        let revoked = self::revoked(&mut cases, authority, &of_member())?;
        secured.peer.revoke(&authority.revoke(&[revoked])?)?;
        let named = match strict {
            true => Wanted::named(super::MEMBER).of_host("elsewhere.example"),
            false => Wanted::named("another").of_host(super::MEMBER_HOST),
        };
        cases.push(Case::certificate("another name", authority.sign(&named)?, NOT_ALLOWED));
        ports.push(Port {
            name: format!("{name}'s peer port"),
            address: address_of(&secured.peer_endpoint())?,
            text: "rejected connection on peer endpoint",
            member,
            cases,
        });
    }
    Ok(ports)
}

const NOT_ALLOWED: &str = "client certificate authentication failed";

impl Case {
    fn certificate(what: &'static str, made: Made, why: &'static str) -> Self {
        Self { what, shows: Shows::Certificate(made), why: Some(why) }
    }
}

/// What is wrong on any port.
fn cases(
    authority: &Authority,
    strangers: &[(&'static str, &Authority)],
    good: &Wanted,
) -> Result<Vec<Case>> {
    let expired = Wanted { hours: (-48, -24), ..good.clone() };
    let early = Wanted { hours: (24, 48), ..good.clone() };
    let unknown = "x509: certificate signed by unknown authority";
    let hour = "x509: certificate has expired or is not yet valid";
    let mut cases = vec![
        Case { what: "good", shows: Shows::Certificate(authority.sign(good)?), why: None },
        Case::certificate("expired", authority.sign(&expired)?, hour),
        Case::certificate("not yet good", authority.sign(&early)?, hour),
        Case {
            what: "none",
            shows: Shows::Nothing,
            why: Some("tls: client didn't provide a certificate"),
        },
        Case {
            what: "plain",
            shows: Shows::Plain,
            why: Some("tls: first record does not look like a TLS handshake"),
        },
    ];
    for (what, stranger) in strangers {
        cases.push(Case::certificate(what, stranger.sign(good)?, unknown));
    }
    Ok(cases)
}

/// Adds one that is revoked; its serial number.
fn revoked(cases: &mut Vec<Case>, authority: &Authority, good: &Wanted) -> Result<u64> {
    let made = authority.sign(good)?;
    let serial = made.serial;
    cases.push(Case::certificate("revoked", made, "revoked"));
    Ok(serial)
}

impl Port<'_> {
    async fn check(&self, trial: &Trial, case: &Case, findings: &mut Vec<String>) -> Result<()> {
        let trusting = match &case.shows {
            Shows::Certificate(made) => Trusting::showing(&trial.bundle, made),
            Shows::Nothing | Shows::Plain => Trusting::showing_nothing(&trial.bundle),
        };
        let (own, said) = match &case.shows {
            Shows::Plain => ask_plainly(self.address, REQUEST).await,
            Shows::Certificate(_) | Shows::Nothing => {
                Dialer::new(&trusting, Speaks::Http1)?.ask(self.address, REQUEST).await
            }
        };
        let (place, what) = (&self.name, case.what);
        let served = said.as_ref().is_ok_and(|said| said.starts_with("HTTP/1.1 200"));
        if served != case.why.is_none() {
            findings.push(format!("{place}, {what}: {said:?}"));
        }
        let expected = usize::from(case.why.is_some());
        let lines = self.lines(own, expected).await?;
        let told = |line: &String| {
            line.contains(self.text) && case.why.is_some_and(|why| line.contains(why))
        };
        if lines.len() != expected || !lines.iter().all(told) {
            findings.push(format!("{place}, {what}, from {own}: logged {lines:#?}"));
        }
        Ok(())
    }

    /// The lines of the log that name an address, once there are as many as expected and no more come.
    async fn lines(&self, own: SocketAddr, expected: usize) -> Result<Vec<String>> {
        let own = format!("\"{own}\"");
        let named = || -> Result<Vec<String>> {
            let log = self.member.log_text()?;
            Ok(log.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect())
        };
        let begun = Instant::now();
        while named()?.len() < expected && begun.elapsed() < LOGGED_BY {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(ALONE_FOR).await;
        named()
    }
}
