//! A1.11: TLS and users together, by etcdctl's own way: who is limited to `/registry/` has that and nothing else on every
//! member; a wrong certificate is refused; a certificate's common name is its user; the JSON gateway takes no such name.
//!
//! ```text
//!   users and roles by etcdctl ── auth enable ── table of commands: who, what, what is said ── HTTP through the gateway
//!      ── a right is taken away: at once, everywhere ── auth disable
//! ```

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::cluster::START_DEADLINE;
use crate::member::{Workspace, panics_in};
use crate::tls::{Authority, Dialer, Folder, Made, Secured, Speaks, Trusting, Wanted, address_of};
use crate::verdict::Verdict;

const PATIENCE: Duration = Duration::from_secs(20);
const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";
const WRONG_PASSWORD: &str = "etcdserver: authentication failed, invalid user ID or password";
const NO_PASSWORD: &str = "auth: authentication failed, password was given for no password user";
const NAMED_AT_GATEWAY: &str = "CommonName of client sending a request against gateway will be ignored and not used \
     as expected";

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value = "etcdctl")]
    etcdctl: PathBuf,
}

/// Sets up users, then asks as each of them.
///
/// # Errors
/// What hinders the harness: no binary, no etcdctl.
pub(crate) async fn rbac(options: Options) -> Result<Verdict> {
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let workspace = Workspace::create("rbac")?;
    let mut trial = Trial::start(&options, workspace.path())?;
    let ran = trial.run().await;
    let mut findings = std::mem::take(&mut trial.findings);
    if let Err(error) = ran {
        findings.push(format!("{error:#}"));
    }
    for secured in &mut trial.members {
        findings.extend(secured.member.as_mut().and_then(|member| member.ended()));
        findings.extend(panics_in(&secured.spec.log)?);
    }
    println!("{} commands and requests", trial.asked);
    drop(trial);
    if findings.is_empty() {
        workspace.discard()?;
    } else {
        findings.push(format!("kept: {}", workspace.path().display()));
    }
    Ok(Verdict::of(findings))
}

struct Trial {
    members: Vec<Secured>,
    folder: PathBuf,
    etcdctl: PathBuf,
    authority: Authority,
    findings: Vec<String>,
    asked: usize,
}

/// How etcdctl presents itself.
#[derive(Debug, Clone, Copy)]
struct As {
    /// The certificate's file, by the name in it.
    certificate: &'static str,
    /// `name:password`.
    user: Option<&'static str>,
}

const ROOT: As = As { certificate: "nameless", user: Some("root:of all") };
const IM: As = As { certificate: "nameless", user: Some("im:of chats") };
const IM_BY_NAME: As = As { certificate: "im", user: None };
const GATEWAY_BY_NAME: As = As { certificate: "gateway", user: None };
const ROOT_BY_NAME: As = As { certificate: "root", user: None };

/// What a command must say.
#[derive(Debug, Clone, Copy)]
enum Says {
    /// It succeeds, and its output has this.
    Ok(&'static str),
    /// It fails, and its complaint has this.
    No(&'static str),
}

use Says::{No, Ok as Yes};

impl Trial {
    fn start(options: &Options, root: &Path) -> Result<Self> {
        let authority = Authority::new("authority")?;
        let mut members = Secured::lay_out(&options.server, root, 3)?;
        for member in &mut members {
            for (folder, name) in [(&member.server, "server"), (&member.peer, "member")] {
                folder.show(&authority.sign(&Wanted::named(name))?)?;
                folder.trust(&authority.pem)?;
                folder.revoke(&authority.revoke(&[])?)?;
            }
            member.member = Some(member.spec.launch()?);
        }
        for member in members.iter_mut().filter_map(|member| member.member.as_mut()) {
            block_in_place(|| member.await_ready(START_DEADLINE))?;
        }
        let stranger = Authority::new("stranger")?;
        let shown = [
            ("nameless", authority.sign(&Wanted::nameless())?),
            ("stranger", stranger.sign(&Wanted::named("root"))?),
        ];
        let named = ["im", "gateway", "root", "nobody"];
        let named =
            named.map(|name| Ok::<_, anyhow::Error>((name, authority.sign(&Wanted::named(name))?)));
        for (name, made) in shown.into_iter().chain(named.into_iter().collect::<Result<Vec<_>>>()?)
        {
            let folder = Folder::create(root.join(name))?;
            folder.show(&made)?;
            folder.trust(&authority.pem)?;
        }
        Ok(Self {
            members,
            folder: root.to_owned(),
            etcdctl: options.etcdctl.clone(),
            authority,
            findings: Vec::new(),
            asked: 0,
        })
    }

    async fn run(&mut self) -> Result<()> {
        self.all(SETUP).await?;
        self.all(LIMITED).await?;
        self.all(BY_NAME).await?;
        self.all(STRANGERS).await?;
        self.gateway().await?;
        self.all(TAKEN_AWAY).await
    }

    /// Each command at the next member.
    async fn all(&mut self, table: &[(As, &str, Says)]) -> Result<()> {
        for (who, command, says) in table {
            let output = self.etcdctl(*who, command).await?;
            self.judge(*who, command, *says, &output);
        }
        Ok(())
    }

    async fn etcdctl(&mut self, who: As, command: &str) -> Result<Output> {
        let nth = self.asked % self.members.len();
        self.asked += 1;
        let file = |name: &str| self.folder.join(who.certificate).join(name);
        // Whoever gets no connection tries for all of it.
        let patience = if who.certificate == "stranger" { "2s" } else { "15s" };
        let mut run = Command::new(&self.etcdctl);
        run.env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.members[nth].spec.endpoint()))
            .arg(format!("--command-timeout={patience}"))
            .arg(format!("--cacert={}", file("ca.pem").display()))
            .arg(format!("--cert={}", file("cert.pem").display()))
            .arg(format!("--key={}", file("key.pem").display()))
            .kill_on_drop(true);
        if let Some(user) = who.user {
            run.arg(format!("--user={user}"));
        }
        run.args(command.split(' ').map(|word| word.replace('_', " ")));
        let output = timeout(PATIENCE, run.output()).await;
        let output = output.with_context(|| format!("{command}: still runs"))?;
        output.with_context(|| format!("cannot run {}", self.etcdctl.display()))
    }

    fn judge(&mut self, who: As, command: &str, says: Says, output: &Output) {
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        let right = match says {
            Yes(text) => output.status.success() && said.contains(text),
            No(text) => !output.status.success() && complained.contains(text),
        };
        if !right {
            let (said, complained) = (said.trim(), complained.trim());
            self.findings.push(format!(
                "{command}, as {who:?}: {}, {said:?}, {complained:?}, not {says:?}",
                output.status
            ));
        }
    }

    /// JSON over HTTPS: a named certificate is refused, one without a name brings a token.
    async fn gateway(&mut self) -> Result<()> {
        for nth in 0..self.members.len() {
            let address = address_of(&self.members[nth].spec.endpoint())?;
            let named = self.authority.sign(&Wanted::named("im"))?;
            let bundle = self.authority.pem.clone();
            let over =
                move |made: &Made| Dialer::new(&Trusting::showing(&bundle, made), Speaks::Http1);
            let named = over(&named)?;
            // {"key":"/registry/a"}
            let read = r#"{"key":"L3JlZ2lzdHJ5L2E="}"#;
            let answer = named.ask(address, &post("/v3/kv/range", "", read)).await.1;
            self.expect(nth, "a named certificate", &answer, "400", NAMED_AT_GATEWAY);
            let answer =
                named.ask(address, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            self.expect(nth, "its probe", &answer.await.1, "200", "\"health\":\"true\"");

            let nameless = over(&self.authority.sign(&Wanted::nameless())?)?;
            let login = r#"{"name":"im","password":"of chats"}"#;
            let answer = nameless.ask(address, &post("/v3/auth/authenticate", "", login)).await.1;
            self.expect(nth, "a login", &answer, "200", "\"token\":");
            let token = answer.ok().as_deref().and_then(token_in).unwrap_or_default();
            let answer = nameless.ask(address, &post("/v3/kv/range", &token, read)).await.1;
            self.expect(nth, "a read with a token", &answer, "200", "\"kvs\":");
            // {"key":"/other"}
            let other = r#"{"key":"L290aGVy"}"#;
            let answer = nameless.ask(address, &post("/v3/kv/range", &token, other)).await.1;
            self.expect(nth, "a read beyond", &answer, "403", DENIED);
            let answer = nameless.ask(address, &post("/v3/kv/range", "", read)).await.1;
            self.expect(nth, "a read as nobody", &answer, "400", NOBODY);
        }
        Ok(())
    }

    fn expect(
        &mut self,
        nth: usize,
        what: &str,
        answer: &Result<String, String>,
        status: &str,
        text: &str,
    ) {
        self.asked += 1;
        let right = answer.as_ref().is_ok_and(|said| {
            said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains(text)
        });
        if !right {
            self.findings
                .push(format!("m{nth}, gateway, {what}: {answer:?}, not {status} {text:?}"));
        }
    }
}

fn post(path: &str, token: &str, body: &str) -> String {
    let authorization = match token {
        "" => String::new(),
        token => format!("Authorization: {token}\r\n"),
    };
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn token_in(answer: &str) -> Option<String> {
    let (_, rest) = answer.split_once("\"token\":\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Without users yet; words are separated by spaces, and `_` stands for a space in one.
const SETUP: &[(As, &str, Says)] = &[
    (As { user: None, ..ROOT }, "user add root:of_all", Yes("User root created")),
    (As { user: None, ..ROOT }, "role add root", Yes("Role root created")),
    (
        As { user: None, ..ROOT },
        "user grant-role root root",
        Yes("Role root is granted to user root"),
    ),
    (As { user: None, ..ROOT }, "role add chats", Yes("Role chats created")),
    (
        As { user: None, ..ROOT },
        "role grant-permission chats --prefix=true readwrite /registry/",
        Yes("Role chats updated"),
    ),
    (As { user: None, ..ROOT }, "user add im:of_chats", Yes("User im created")),
    (As { user: None, ..ROOT }, "user grant-role im chats", Yes("is granted to user im")),
    (As { user: None, ..ROOT }, "user add gateway --no-password", Yes("User gateway created")),
    (As { user: None, ..ROOT }, "user grant-role gateway chats", Yes("is granted to user gateway")),
    (As { user: None, ..ROOT }, "put /other before", Yes("OK")),
    (As { user: None, ..ROOT }, "auth enable", Yes("Authentication Enabled")),
];

/// What who has `/registry/` may do, and what not.
const LIMITED: &[(As, &str, Says)] = &[
    (IM, "put /registry/a 1", Yes("OK")),
    (IM, "get /registry/a --print-value-only", Yes("1")),
    (IM, "get /registry/ --prefix --keys-only", Yes("/registry/a")),
    (IM, "put /other 1", No(DENIED)),
    (IM, "get /other", No(DENIED)),
    (IM, "get /registry", No(DENIED)),
    (IM, "get /registry/ --from-key", No(DENIED)),
    (IM, "get / --prefix", No(DENIED)),
    (IM, "del /other", No(DENIED)),
    (IM, "del / --prefix", No(DENIED)),
    (IM, "put /registry/b 2", Yes("OK")),
    (IM, "del /registry/b", Yes("1")),
    (IM, "lease grant 60", Yes("granted with TTL")),
    (IM, "user list", No(DENIED)),
    (IM, "role add more", No(DENIED)),
    (IM, "user get im", Yes("Roles: chats")),
    (IM, "role get chats", Yes("KV Read")),
    (IM, "compaction 2", No(DENIED)),
    (IM, "auth disable", No(DENIED)),
    (As { user: Some("im:wrong"), ..IM }, "get /registry/a", No(WRONG_PASSWORD)),
    (As { user: Some("none:wrong"), ..IM }, "get /registry/a", No(WRONG_PASSWORD)),
    (As { user: Some("gateway:x"), ..IM }, "get /registry/a", No(NO_PASSWORD)),
    // A certificate without a name is somebody whom nobody knows.
    (As { user: None, ..IM }, "get /registry/a", No(DENIED)),
    (As { user: None, ..IM }, "user list", No(NOBODY)),
    (ROOT, "put /other after", Yes("OK")),
    (ROOT, "user list", Yes("gateway")),
];

/// The name in a certificate is its user; a password goes before it.
const BY_NAME: &[(As, &str, Says)] = &[
    (IM_BY_NAME, "put /registry/c 3", Yes("OK")),
    (IM_BY_NAME, "get /other", No(DENIED)),
    (GATEWAY_BY_NAME, "get /registry/c --print-value-only", Yes("3")),
    (GATEWAY_BY_NAME, "put /other 1", No(DENIED)),
    (ROOT_BY_NAME, "user list", Yes("im")),
    (ROOT_BY_NAME, "get /other --print-value-only", Yes("after")),
    (As { user: IM.user, ..ROOT_BY_NAME }, "get /other", No(DENIED)),
    (As { user: ROOT.user, ..IM_BY_NAME }, "get /other --print-value-only", Yes("after")),
    (As { certificate: "nobody", user: None }, "get /registry/a", No(DENIED)),
];

/// Another authority's certificate helps nobody, whatever its name and password.
const STRANGERS: &[(As, &str, Says)] = &[
    (As { certificate: "stranger", user: None }, "get /registry/a", No("")),
    (As { certificate: "stranger", user: ROOT.user }, "get /registry/a", No("")),
];

/// What is taken away is gone at once, everywhere; then nobody is asked any more.
const TAKEN_AWAY: &[(As, &str, Says)] = &[
    (ROOT, "role revoke-permission chats --prefix=true /registry/", Yes("Permission of")),
    (IM, "get /registry/a", No(DENIED)),
    (IM, "put /registry/a 2", No(DENIED)),
    (GATEWAY_BY_NAME, "get /registry/a", No(DENIED)),
    (ROOT, "role grant-permission chats read /registry/a", Yes("Role chats updated")),
    (IM, "get /registry/a --print-value-only", Yes("1")),
    (IM, "put /registry/a 2", No(DENIED)),
    (ROOT, "user delete im", Yes("User im deleted")),
    (IM, "get /registry/a", No(WRONG_PASSWORD)),
    (IM_BY_NAME, "get /registry/a", No(DENIED)),
    (ROOT, "auth disable", Yes("Authentication Disabled")),
    (As { user: None, ..IM }, "get /other --print-value-only", Yes("after")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_an_answer() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n{\"header\":{},\"token\":\"abc.12\"}";
        assert_eq!(token_in(answer).as_deref(), Some("abc.12"));
        assert_eq!(token_in("{}"), None);
    }
}
