//! A network namespace for each member, a bridge between them, and cuts that can be one-way.
//!
//! ```text
//!   m1 ── eth0 ── veth ──┐
//!   m2 ── eth0 ── veth ──┼── bridge ── the harness and its clients
//!   m3 ── eth0 ── veth ──┘
//! ```
//!
//! A cut from A to B drops A's packets in B's input chain and nothing else: B's packets still arrive at A. Names stand
//! in each namespace's own hosts file, which is rewritten in place when an address changes.
//!
//! **Invariant:** nothing outlives [`Network`] but what a SIGKILL of the harness leaves; that, the next run removes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Of 198.18.0.0/15, which is for tests: 512 networks, one a run.
const NETWORKS: u32 = 512;
/// The harness's own address; members count from 1.
const HARNESS: u32 = 254;
/// Namespaces, devices and folders of ours begin so, followed by the harness's pid.
const PREFIX: &str = "qj";

/// Who is at an end of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Clients,
    /// By its number, from 0.
    Member(usize),
}

/// Packets of `from` do not reach `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) from: Node,
    pub(crate) to: Node,
}

/// The namespaces of one cluster.
#[derive(Debug)]
pub(crate) struct Network {
    pid: u32,
    subnet: u32,
    names: Vec<String>,
    addresses: Vec<Ipv4Addr>,
    /// The next address that nobody has had.
    next_host: u32,
    cuts: BTreeSet<Cut>,
}

/// Whether this process may make network namespaces.
///
/// # Errors
/// What is missing; a run that needs them has to fail then.
pub(crate) fn permitted() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
    run("ip", &["netns", "list"]).context("ip (iproute2) is needed")?;
    run("nft", &["--version"]).context("nft (nftables) is needed")
}

// === impl Network ===

impl Network {
    /// A namespace for each name, all connected.
    ///
    /// # Errors
    /// When namespaces are not permitted, or a tool is missing.
    pub(crate) fn create(names: &[String]) -> Result<Self> {
        permitted()?;
        sweep();
        let pid = std::process::id();
        let mut network = Self {
            pid,
            subnet: free_subnet(pid)?,
            names: names.to_vec(),
            addresses: Vec::new(),
            next_host: 1,
            cuts: BTreeSet::new(),
        };
        let bridge = network.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        let own = format!("{}/24", network.host(HARNESS));
        run("ip", &["addr", "add", &own, "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for nth in 0..names.len() {
            network.connect(nth)?;
        }
        network.write_hosts()?;
        Ok(network)
    }

    fn connect(&mut self, nth: usize) -> Result<()> {
        let (namespace, device) = (self.namespace(nth), format!("{PREFIX}{}v{nth}", self.pid));
        run("ip", &["netns", "add", &namespace])?;
        run(
            "ip",
            &["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", &namespace],
        )?;
        run("ip", &["link", "set", &device, "master", &self.bridge(), "up"])?;
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        run("ip", &["-n", &namespace, "link", "set", "eth0", "up"])?;
        let address = self.host(self.next_host);
        self.next_host += 1;
        run("ip", &["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        self.addresses.push(address);
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{PREFIX}{}b", self.pid)
    }

    pub(crate) fn namespace(&self, nth: usize) -> String {
        format!("{PREFIX}{}n{nth}", self.pid)
    }

    pub(crate) fn address(&self, nth: usize) -> Ipv4Addr {
        self.addresses[nth]
    }

    fn host(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0xC612_0000 + self.subnet * 256 + number)
    }

    fn address_of(&self, node: Node) -> Ipv4Addr {
        match node {
            Node::Clients => self.host(HARNESS),
            Node::Member(nth) => self.addresses[nth],
        }
    }

    /// Gives a member an address that nobody has had, under its old name.
    pub(crate) fn readdress(&mut self, nth: usize) -> Result<()> {
        let namespace = self.namespace(nth);
        let address = self.host(self.next_host);
        self.next_host += 1;
        ensure!(self.next_host < HARNESS, "no addresses left");
        run("ip", &["-n", &namespace, "addr", "flush", "dev", "eth0"])?;
        run("ip", &["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        self.addresses[nth] = address;
        self.write_hosts()
    }

    fn write_hosts(&self) -> Result<()> {
        self.publish_names_but(None)
    }

    /// Tells every member every name, but one. In place: running members see it, too.
    pub(crate) fn publish_names_but(&self, unknown: Option<usize>) -> Result<()> {
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for (nth, (name, address)) in self.names.iter().zip(&self.addresses).enumerate() {
            if Some(nth) != unknown {
                hosts += &format!("{address} {name}\n");
            }
        }
        for nth in 0..self.names.len() {
            let folder = own_files(&self.namespace(nth));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("hosts"), &hosts)?;
        }
        Ok(())
    }

    /// Makes these cuts and no others.
    pub(crate) fn cut(&mut self, cuts: impl IntoIterator<Item = Cut>) -> Result<()> {
        let cuts: BTreeSet<_> = cuts.into_iter().collect();
        for nth in 0..self.names.len() {
            let touching = |cuts: &BTreeSet<Cut>| -> Vec<Cut> {
                let member = Node::Member(nth);
                let here = |cut: &&Cut| match cut.to {
                    // The harness's namespace is not ours alone: towards clients, packets are dropped where they leave.
                    Node::Clients => cut.from == member,
                    Node::Member(_) => cut.to == member,
                };
                cuts.iter().filter(here).copied().collect()
            };
            let now = touching(&cuts);
            if touching(&self.cuts) != now {
                self.drop_at(nth, &now)?;
            }
        }
        self.cuts = cuts;
        Ok(())
    }

    pub(crate) fn heal(&mut self) -> Result<()> {
        self.cut([])
    }

    fn drop_at(&self, nth: usize, cuts: &[Cut]) -> Result<()> {
        let mut rules =
            "table inet cuts {}\ndelete table inet cuts\ntable inet cuts {\n".to_owned();
        for hook in ["input", "output"] {
            rules += &format!(" chain {hook} {{\n  type filter hook {hook} priority 0;\n");
            for cut in cuts {
                let leaves = cut.to == Node::Clients;
                match hook {
                    "output" if leaves => {
                        rules += &format!("  ip daddr {} drop\n", self.address_of(cut.to));
                    }
                    "input" if !leaves => {
                        rules += &format!("  ip saddr {} drop\n", self.address_of(cut.from));
                    }
                    _ => {}
                }
            }
            rules += " }\n";
        }
        rules += "}\n";
        let mut nft = tool("ip")
            .args(["netns", "exec", &self.namespace(nth), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        nft.stdin.take().context("a pipe was asked for")?.write_all(rules.as_bytes())?;
        let output = nft.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft: {told}");
        Ok(())
    }

    /// Lets a member's packets out at `kbit` a second only, or again at any rate.
    pub(crate) fn slow(&self, nth: usize, kbit: Option<u32>) -> Result<()> {
        let namespace = self.namespace(nth);
        let there = ["-n", &namespace, "qdisc", "replace", "dev", "eth0", "root"];
        match kbit {
            Some(kbit) => {
                let rate = format!("{kbit}kbit");
                let limits = ["tbf", "rate", &rate, "burst", "4kb", "latency", "400ms"];
                run("tc", &[&there[..], &limits].concat())
            }
            None => run("tc", &["-n", &namespace, "qdisc", "del", "dev", "eth0", "root"]),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.pid);
    }
}

/// What `ip netns exec` puts over the files of `/etc`.
fn own_files(namespace: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(namespace)
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn run(name: &str, arguments: &[&str]) -> Result<()> {
    let output =
        tool(name).args(arguments).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}", arguments.join(" "), told.trim());
    }
    Ok(())
}

fn listed(arguments: &[&str]) -> String {
    let output = tool("ip").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn free_subnet(pid: u32) -> Result<u32> {
    let taken = listed(&["-4", "-o", "addr"]);
    (0..NETWORKS)
        .map(|offset| (pid.wrapping_mul(61) + offset) % NETWORKS)
        .find(|subnet| {
            let own = Ipv4Addr::from(0xC612_0000 + subnet * 256 + HARNESS);
            !taken.contains(&format!("{own}/"))
        })
        .context("no network of 198.18.0.0/15 is free")
}

/// The pid in the name of something of ours.
fn owner(name: &str) -> Option<u32> {
    let digits: String =
        name.strip_prefix(PREFIX)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Removes what harnesses that are gone have left.
fn sweep() {
    let namespaces = listed(&["netns", "list"]);
    let devices = listed(&["-o", "link"]);
    let names = namespaces.split_whitespace().chain(devices.split_whitespace());
    let gone: BTreeSet<_> = names
        .filter_map(owner)
        .filter(|pid| !PathBuf::from(format!("/proc/{pid}")).exists())
        .collect();
    for pid in gone {
        remove(pid);
    }
}

/// Removes everything that bears this pid. Nothing can be done about what does not go.
fn remove(pid: u32) {
    let mine = |name: &&str| owner(name) == Some(pid);
    for namespace in listed(&["netns", "list"]).split_whitespace().filter(mine) {
        let _not_there = run("ip", &["netns", "del", namespace]);
        let _not_there = fs::remove_dir_all(own_files(namespace));
    }
    let _not_there = run("ip", &["link", "del", &format!("{PREFIX}{pid}b")]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_left_is_known_by_its_pid() {
        assert_eq!(owner("qj123n0"), Some(123));
        assert_eq!(owner("qj123b:"), Some(123));
        assert_eq!(owner("eth0"), None);
        assert_eq!(owner("qjb"), None);
    }
}
