//! What is written about the commands: their help, and docs/CLI.md with its table of rows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use quorate::cli::fleet::{ROWS, commands, daemons};

use super::{expect, folder};

/// The names of every command down to the leaves, the program's first.
fn paths(command: &clap::Command, above: &[String], into: &mut Vec<Vec<String>>) {
    let mut own = above.to_vec();
    own.push(command.get_name().to_owned());
    let subs: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    if !above.is_empty() {
        into.push(own.clone());
    }
    for sub in subs {
        paths(sub, &own, into);
    }
}

fn all() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    paths(&commands(), &[], &mut found);
    found
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let mut text = String::new();
    for path in all() {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .env_clear()
            .args(&path[1..])
            .arg("--help")
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{path:?}");
        assert!(output.stderr.is_empty(), "{path:?}");
        let help = String::from_utf8(output.stdout).expect("help is text");
        writeln!(text, "$ {} --help\n{help}", path.join(" ")).expect("writing to a string");
    }
    expect(&folder().join("help.txt"), &text);
}

const BEGIN: &str = "<!-- commands: written by `UPDATE_EXPECT=1 cargo test --test cli_fleet` -->\n";
const END: &str = "<!-- end of commands -->\n";

/// The reference part of docs/CLI.md is made from the parser itself.
#[test]
fn the_documentation_lists_every_command_with_its_flags_and_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CLI.md");
    let text = fs::read_to_string(&path).expect("docs/CLI.md is there");
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the commands begin");
    let (_, after) = rest.split_once(END).expect("the mark where they end");
    expect(&path, &format!("{before}{BEGIN}{}{END}{after}", reference()));
}

fn reference() -> String {
    let mut out = String::new();
    let root = commands();
    for path in all() {
        let mut command = &root;
        for name in &path[1..] {
            command = command.find_subcommand(name).expect("it was listed");
        }
        if command.has_subcommands() {
            continue;
        }
        let words = path[1..].join(" ");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "\n### {words}\n\n{about}.").expect("writing to a string");
        for (_, method, row) in ROWS.iter().filter(|(command, ..)| *command == words) {
            writeln!(out, "Asks `{method} {row}`.").expect("writing to a string");
        }
        describe(command, &mut out);
    }
    for program in daemons() {
        let about = program.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "\n### {}\n\n{about}", program.get_name()).expect("writing to a string");
        describe(&program, &mut out);
    }
    out.push('\n');
    out
}

fn describe(command: &clap::Command, out: &mut String) {
    let mut lines = Vec::new();
    for arg in command.get_arguments() {
        if arg.is_global_set() || arg.get_id() == "help" {
            continue;
        }
        let value = arg.get_value_names().unwrap_or_default().join(" ");
        let takes = arg.get_action().takes_values();
        let name = match arg.get_long() {
            Some(long) if takes => format!("--{long} {value}"),
            Some(long) => format!("--{long}"),
            None => value,
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default: String = arg
            .get_default_values()
            .iter()
            .filter_map(|value| value.to_str())
            .filter(|value| takes && !value.is_empty())
            .map(|value| format!(" (default {value})"))
            .collect();
        lines.push(format!("- `{name}`: {help}{default}\n"));
    }
    if !lines.is_empty() {
        out.push('\n');
        out.push_str(&lines.concat());
    }
}

/// A command that asks has its row in the table, and the table names no other command.
#[test]
fn the_table_of_rows_names_every_command_that_asks() {
    let leaves: Vec<String> = all().iter().map(|path| path[1..].join(" ")).collect();
    for (command, ..) in ROWS {
        assert!(leaves.iter().any(|leaf| leaf == command), "{command} is no command");
    }
    let local = ["completion", "man", "config show", "config", "auth-token", "capi", "operation"];
    for leaf in leaves.iter().filter(|leaf| !local.contains(&leaf.as_str())) {
        assert!(ROWS.iter().any(|(command, ..)| command == leaf), "{leaf} asks no row");
    }
}
