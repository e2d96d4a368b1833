//! What a program answered, thing by thing, and how two programs compare.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What kind of thing was asked for. The order is that of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Method,
    Gateway,
    Client,
    MetricsPort,
    Peer,
    Flag,
    Gate,
    Program,
    Metric,
}

impl Kind {
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Method,
        Kind::Gateway,
        Kind::Client,
        Kind::MetricsPort,
        Kind::Peer,
        Kind::Flag,
        Kind::Gate,
        Kind::Program,
        Kind::Metric,
    ];

    /// Its word in records and notes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Method => "method",
            Kind::Gateway => "gateway",
            Kind::Client => "client",
            Kind::MetricsPort => "metrics-port",
            Kind::Peer => "peer",
            Kind::Flag => "flag",
            Kind::Gate => "gate",
            Kind::Program => "program",
            Kind::Metric => "metric",
        }
    }

    pub(crate) fn of(word: &str) -> Kind {
        let found = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        found.unwrap_or_else(|| panic!("{word} is no kind"))
    }
}

/// How one thing stands beside etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Works,
    Differs,
    Absent,
    /// etcd has no such thing.
    Ours,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Works => "works",
            Verdict::Differs => "differs",
            Verdict::Absent => "absent",
            Verdict::Ours => "ours",
        }
    }
}

/// A line of the page.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) how: String,
}

/// Every thing that was asked for, and what was answered, on one line.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<(Kind, String), String>);

impl Seen {
    pub(crate) fn add(&mut self, kind: Kind, name: &str, answer: String) {
        let answer = answer.replace(['\n', '\t'], " ").trim().to_owned();
        let old = self.0.insert((kind, name.to_owned()), answer);
        assert!(old.is_none(), "{name} was asked for twice");
    }

    pub(crate) fn names(&self, of: Kind) -> impl Iterator<Item = &str> {
        self.0.keys().filter(move |(kind, _)| *kind == of).map(|(_, name)| name.as_str())
    }

    /// A line each: kind, name and answer, with tabs between them.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for ((kind, name), answer) in &self.0 {
            writeln!(text, "{}\t{name}\t{answer}", kind.word()).expect("a string takes it");
        }
        text
    }

    pub(crate) fn from_text(text: &str) -> Seen {
        let mut seen = Seen::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, '\t');
            let mut part = || parts.next().expect("a line has three parts");
            let (kind, name) = (Kind::of(part()), part());
            seen.add(kind, name, part().to_owned());
        }
        seen
    }

    /// Where `ours` stands beside these answers of etcd's.
    pub(crate) fn judge(&self, ours: &Seen) -> Vec<Row> {
        let asked = self.0.iter().map(|((kind, name), etcd)| {
            let (verdict, how) = match ours.0.get(&(*kind, name.clone())) {
                Some(same) if same == etcd => (Verdict::Works, String::new()),
                Some(other) if is_refusal(*kind, other) => (Verdict::Absent, String::new()),
                Some(other) => (Verdict::Differs, format!("`{other}`; etcd `{etcd}`")),
                None => (Verdict::Absent, String::new()),
            };
            Row { kind: *kind, name: name.clone(), verdict, how }
        });
        let more = ours.0.keys().filter(|key| !self.0.contains_key(key)).map(|(kind, name)| Row {
            kind: *kind,
            name: name.clone(),
            verdict: Verdict::Ours,
            how: String::new(),
        });
        let mut rows: Vec<Row> = asked.chain(more).collect();
        rows.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        rows
    }
}

/// "Not here", in the words of each kind.
fn is_refusal(kind: Kind, answer: &str) -> bool {
    match kind {
        Kind::Method => answer.starts_with("Unimplemented"),
        Kind::Gateway | Kind::Client | Kind::MetricsPort | Kind::Peer => {
            answer.starts_with("404 ") || answer.starts_with("501 ")
        }
        Kind::Flag | Kind::Gate | Kind::Program | Kind::Metric => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_beside_etcds() {
        let etcd = Seen::from_text(
            "method\ta/Same\tOK b\nmethod\ta/Other\tOK b\nmethod\ta/Unbuilt\tOK\n\
             client\t/gone\t200 x\nmetric\tlost\tgauge\nmetric\tlabels\tcounter{a}\n",
        );
        let ours = Seen::from_text(
            "method\ta/Same\tOK b\nmethod\ta/Other\tOK\nmethod\ta/Unbuilt\tUnimplemented: \n\
             client\t/gone\t404 text\nmetric\tmore\tgauge\nmetric\tlabels\tcounter{b}\n",
        );
        let judged = etcd.judge(&ours);
        let judged = judged.iter().map(|row| (row.name.as_str(), row.verdict.word()));
        let want = [
            ("a/Other", "differs"),
            ("a/Same", "works"),
            ("a/Unbuilt", "absent"),
            ("/gone", "absent"),
            ("labels", "differs"),
            ("lost", "absent"),
            ("more", "ours"),
        ];
        assert_eq!(judged.collect::<Vec<_>>(), want);
        assert_eq!(Seen::from_text(&etcd.to_text()).to_text(), etcd.to_text());
    }
}
