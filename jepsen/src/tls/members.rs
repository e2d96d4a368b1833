//! Members that speak nothing but mutual TLS, each with a folder of files for its clients and one for its peers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::authority::Made;
use crate::member::{Member, MemberSpec};

/// Certificate, key, bundle and revocation list of one side.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a file there in one step, as who rotates should.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let beside = self.path("new");
        fs::write(&beside, content)?;
        Ok(fs::rename(beside, self.path(name))?)
    }

    /// Key first: for a moment the two do not belong together.
    pub(crate) fn show(&self, made: &Made) -> Result<()> {
        self.put("key.pem", &made.key)?;
        self.put("cert.pem", &made.cert)
    }

    pub(crate) fn trust(&self, bundle: &str) -> Result<()> {
        self.put("ca.pem", bundle)
    }

    /// `list` in DER.
    pub(crate) fn revoke(&self, list: &[u8]) -> Result<()> {
        self.put("crl.der", list)
    }

    fn flag(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", self.path(file).display())
    }
}

/// One member.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) spec: MemberSpec,
    /// What it shows clients.
    pub(crate) server: Folder,
    /// What it shows members.
    pub(crate) peer: Folder,
    pub(crate) member: Option<Member>,
}

impl Secured {
    /// `count` members below `root`, on the loopback. Nothing is shown yet, nothing started.
    pub(crate) fn lay_out(binary: &Path, root: &Path, count: usize) -> Result<Vec<Self>> {
        let mut specs = MemberSpec::several(binary, root, "m", count)?;
        let mut members = Vec::new();
        for spec in &mut specs {
            spec.initial_cluster = spec.initial_cluster.replace("http://", "https://");
        }
        for mut spec in specs {
            spec.secure = true;
            let server = Folder::create(root.join(format!("{}.server", spec.name)))?;
            let peer = Folder::create(root.join(format!("{}.peer", spec.name)))?;
            spec.extra = vec![
                server.flag("cert-file", "cert.pem"),
                server.flag("key-file", "key.pem"),
                server.flag("trusted-ca-file", "ca.pem"),
                server.flag("client-crl-file", "crl.der"),
                "--client-cert-auth".to_owned(),
                peer.flag("peer-cert-file", "cert.pem"),
                peer.flag("peer-key-file", "key.pem"),
                peer.flag("peer-trusted-ca-file", "ca.pem"),
                peer.flag("peer-crl-file", "crl.der"),
                "--peer-client-cert-auth".to_owned(),
            ];
            members.push(Self { spec, server, peer, member: None });
        }
        Ok(members)
    }

    /// Its peer port, as an endpoint.
    pub(crate) fn peer_endpoint(&self) -> String {
        self.spec.peer_url()
    }
}
