//! The pages: tables of everything, and the counts that stand before them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::COMMAND;
use crate::metrics::BY_CHANCE;
use crate::seen::{Kind, Row, Verdict};

const BEGIN: &str = "<!-- counts -->";
const END: &str = "<!-- end of counts -->";

/// Adds what no call shows: `kind | name | verdict | how`, where a name may end with `*`. A note of nothing that was
/// seen, and one that the run has overtaken, is refused.
pub(crate) fn annotate(rows: &mut [Row], notes: &str) -> Result<(), String> {
    for line in notes.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let parts: Vec<&str> = line.splitn(4, " | ").collect();
        let [kind, name, verdict, how] = parts[..] else { panic!("{line}: four parts") };
        let kind = Kind::of(kind);
        let verdict = [Verdict::Works, Verdict::Differs, Verdict::Absent, Verdict::Ours]
            .into_iter()
            .find(|known| known.word() == verdict)
            .unwrap_or_else(|| panic!("{line}: works, differs, absent or ours"));
        let is_meant = |row: &&mut Row| {
            row.kind == kind
                && match name.strip_suffix('*') {
                    Some(start) => row.name.starts_with(start),
                    None => row.name == name,
                }
        };
        let mut meant = 0;
        for row in rows.iter_mut().filter(is_meant) {
            // A difference may be one that no call shows, or one that is none; that something is absent shows.
            let known = |verdict| [Verdict::Works, Verdict::Differs].contains(&verdict);
            if row.verdict != verdict && !(known(row.verdict) && known(verdict)) {
                return Err(format!("stale: {line}: {} {}", row.name, row.verdict.word()));
            }
            row.verdict = verdict;
            how.clone_into(&mut row.how);
            meant += 1;
        }
        if meant == 0 {
            return Err(format!("of nothing that there is: {line}"));
        }
    }
    Ok(())
}

fn about(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Method => (
            "gRPC methods",
            "Each was called with a request that etcd answers: code, text of an error and the fields of the answer are \
             compared.",
        ),
        Kind::Gateway => (
            "The JSON gateway",
            "`POST {}` to each path (a key to watch, a name to lock): status, kind of body, an error's body and the \
             fields of the answer are compared; of a stream its first line. Unless a path says so, its method's \
             differences are its own too.",
        ),
        Kind::Client => (
            "Paths on a client port",
            "Status, kind of body, and what is short or JSON of the body are compared, with `--log-level=debug` and \
             `--enable-pprof`.",
        ),
        Kind::MetricsPort => ("Paths on a metrics port", "The same."),
        Kind::Peer => ("Paths on a peer port", "The same."),
        Kind::Flag => (
            "Flags",
            "Each was set to something other than its default. `works`: it changes what the server is started with.",
        ),
        Kind::Gate => ("Feature gates", "With their stage and default, which are etcd's."),
        Kind::Program => ("Sub-programs", "Which of their flags are known."),
        Kind::Metric => (
            "Metrics",
            "Name, kind and label names are compared, with `--metrics=extensive`, after everything above and after a \
             member was brought up by a whole state.",
        ),
    }
}

/// All rows, kind by kind.
pub(crate) fn tables(rows: &[Row]) -> String {
    let mut page = format!(
        "# Method by method, path by path, flag by flag\n\n\
         Made by a test from a run of this build beside the record of an etcd 3.7.1: do not edit. Its command writes it\n\
         anew: `{COMMAND}`.\n\
         What no call shows is said in `tests/testdata/compatibility/notes.txt`; what belongs to no single thing, in\n\
         [COMPATIBILITY.md](../COMPATIBILITY.md).\n"
    );
    for kind in Kind::ALL {
        let (title, how) = about(kind);
        write!(page, "\n## {title}\n\n{}\n\n| | | |\n|---|---|---|\n", wrap(how))
            .expect(TO_A_STRING);
        for row in rows.iter().filter(|row| row.kind == kind) {
            let how = row.how.replace('|', "\\|");
            writeln!(page, "| `{}` | {} | {how} |", row.name, row.verdict.word())
                .expect(TO_A_STRING);
        }
    }
    let by_chance = BY_CHANCE.map(|name| format!("- `{name}`\n"));
    write!(page, "\nLeft out, for they show once something has failed:\n\n{}", by_chance.concat())
        .expect(TO_A_STRING);
    page
}

/// Lines of at most 120 characters.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.len() + 1 + word.len() > 120 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The page with its counts made anew.
pub(crate) fn with_counts(page: &str, rows: &[Row]) -> String {
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the counts");
    let (_, after) = rest.split_once(END).expect("the counts have an end");
    format!("{before}{BEGIN}\n{}{END}{after}", counts(rows))
}

fn counts(rows: &[Row]) -> String {
    let mut text =
        "| | works | differs | absent | what is absent |\n|---|---:|---:|---:|---|\n".to_owned();
    for kind in Kind::ALL {
        let of = |verdict: Verdict| {
            rows.iter().filter(move |row| row.kind == kind && row.verdict == verdict)
        };
        let absent: Vec<&str> = of(Verdict::Absent).map(|row| row.name.as_str()).collect();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            about(kind).0,
            of(Verdict::Works).count(),
            of(Verdict::Differs).count(),
            absent.len(),
            listed(&absent),
        )
        .expect(TO_A_STRING);
    }
    text
}

/// Names; of many that begin alike only the beginning.
fn listed(names: &[&str]) -> String {
    let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        families.entry(beginning(name)).or_default().push(name);
    }
    let shown = families.into_iter().flat_map(|(beginning, names)| match names.len() {
        ..=3 => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>(),
        count => vec![format!("{count} that begin with `{beginning}`")],
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The program of its flag, the first word of a flag's name, or all.
fn beginning(name: &str) -> &str {
    match name.split_once(" --") {
        Some((program, _)) => program,
        None if name.starts_with("--") => {
            let end = name[2..].find('-').map_or(name.len(), |at| at + 2);
            &name[..end]
        }
        None => name,
    }
}

/// Lines that only one of two pages has, or that stand elsewhere.
pub(crate) fn changed_lines(old: &str, new: &str) -> Vec<String> {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (old.lines().collect(), new.lines().collect());
    let gone = before.difference(&after).map(|line| format!("-{line}"));
    let come = after.difference(&before).map(|line| format!("+{line}"));
    let mut changed: Vec<String> = gone.chain(come).collect();
    if changed.is_empty() && old != new {
        changed.push("the same lines in another order".to_owned());
    }
    changed
}

const TO_A_STRING: &str = "a string takes it";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: Verdict) -> Row {
        Row { kind: Kind::Flag, name: "--a".to_owned(), verdict, how: String::new() }
    }

    #[test]
    fn a_note_says_what_no_call_shows() {
        let mut rows = [row(Verdict::Works)];
        annotate(&mut rows, "# words\nflag | --a* | differs | always on\n").expect("it holds");
        assert_eq!((rows[0].verdict, rows[0].how.as_str()), (Verdict::Differs, "always on"));
    }

    #[test]
    fn a_note_of_nothing_and_one_that_is_stale_are_refused() {
        for (note, want) in [
            ("flag | --a | absent | to come", "stale: "),
            ("flag | --b | differs | x", "of nothing"),
        ] {
            let refused = annotate(&mut [row(Verdict::Works)], note).expect_err(note);
            assert!(refused.starts_with(want), "{refused}");
        }
    }

    #[test]
    fn many_names_that_begin_alike_are_told_by_their_beginning() {
        let names = ["--a-b", "--a-c", "--a-d", "--a-e", "--f", "g start --h"];
        assert_eq!(listed(&names), "4 that begin with `--a`, `--f`, `g start --h`");
    }

    #[test]
    fn pages_are_compared_line_by_line() {
        assert_eq!(changed_lines("a\nb\n", "a\nc\n"), ["-b", "+c"]);
        assert_eq!(changed_lines("a\nb\n", "b\na\n").len(), 1);
        assert!(changed_lines("a\n", "a\n").is_empty());
    }
}
