use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(least: Severity, format: Format, speak: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let dispatch = dispatch_to(least, format, vec![Box::new(buffer.clone())]);
    tracing::dispatcher::with_default(&dispatch, speak);
    let bytes = buffer.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_line_has_zaps_shape_and_order() {
    let text = logged(Severity::Info, Format::Json, || {
        let urls = vec!["http://a:1".to_owned()];
        let span = tracing::info_span!("serving", group = 0);
        let _in = span.enter();
        tracing::info!("listen-client-urls" = ?urls, count = 3, on = true, error = %"a \"b\"", "hello");
    });
    let start = "{\"level\":\"info\",\"ts\":\"20";
    assert!(text.starts_with(start), "{text}");
    let end = concat!(
        ",\"msg\":\"hello\",\"group\":0,\"listen-client-urls\":[\"http://a:1\"],",
        "\"count\":3,\"on\":true,\"error\":\"a \\\"b\\\"\"}\n"
    );
    assert!(text.ends_with(end), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let caller = value["caller"].as_str().unwrap();
    assert!(caller.starts_with("telemetry/telemetry_test.rs:"), "{caller}");
}

#[test]
fn levels_below_the_least_are_silent_and_a_severity_raises_an_error() {
    let speak = || {
        tracing::debug!("d");
        tracing::info!("i");
        tracing::error!("e");
        tracing::error!(severity = "fatal", code = 1, "f");
        tracing::debug!(target: "h2", "chatter");
        tracing::info!(target: "h2", "chatter");
    };
    let at_fatal = logged(Severity::Fatal, Format::Json, speak);
    assert_eq!(at_fatal.lines().count(), 1);
    assert!(at_fatal.starts_with("{\"level\":\"fatal\""));
    assert!(at_fatal.ends_with("\"msg\":\"f\",\"code\":1}\n"));
    assert_eq!(logged(Severity::Debug, Format::Json, speak).lines().count(), 4);
}

#[test]
fn the_console_has_columns() {
    let text = logged(Severity::Info, Format::Console, || {
        tracing::warn!(n = 1, "careful");
        tracing::info!("plain");
    });
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(lines[0][1], "warn");
    assert_eq!(&lines[0][3..], ["careful", "{\"n\":1}"]);
    assert_eq!(&lines[1][3..], ["plain"]);
}

#[test]
fn levels_are_zaps_words() {
    assert_eq!(Severity::parse("INFO"), Some(Severity::Info));
    assert_eq!(Severity::parse("dpanic"), Some(Severity::DPanic));
    assert_eq!(Severity::parse("trace"), None);
}

#[test]
fn two_servers_log_apart() {
    let (one, two) = (Buffer::default(), Buffer::default());
    let first = dispatch_to(Severity::Info, Format::Json, vec![Box::new(one.clone())]);
    let second = dispatch_to(Severity::Info, Format::Json, vec![Box::new(two.clone())]);
    tracing::dispatcher::with_default(&first, || tracing::info!("one"));
    tracing::dispatcher::with_default(&second, || tracing::info!("two"));
    assert!(String::from_utf8_lossy(&one.0.lock()).contains("\"one\""));
    assert!(!String::from_utf8_lossy(&two.0.lock()).contains("\"one\""));
}

#[test]
fn passed_without_a_logger_first() {
    let buffer = Buffer::default();
    let dispatch = dispatch_to(Severity::Info, Format::Json, vec![Box::new(buffer.clone())]);
    let speak = || tracing::info!("passed");
    std::thread::scope(|scope| drop(scope.spawn(speak)));
    tracing::dispatcher::with_default(&dispatch, speak);
    assert_eq!(String::from_utf8_lossy(&buffer.0.lock()).matches("\"passed\"").count(), 1);
}

/// In a process of its own: loggers of other tests hide what one alone misses.
#[test]
fn a_line_is_heard_that_somebody_without_a_logger_has_passed_first() {
    let part = "support::telemetry::tests::passed_without_a_logger_first";
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args(["--exact", part]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn rafts_warnings_of_members_that_do_not_answer_are_for_debugging() {
    let speak = || {
        tracing::warn!(target: "openraft::core", "failed to send a heartbeat");
        tracing::warn!(target: "other", "careful");
    };
    let text = logged(Severity::Info, Format::Json, speak);
    assert!(text.contains("careful") && !text.contains("heartbeat"), "{text}");
    let text = logged(Severity::Debug, Format::Json, speak);
    assert!(text.contains("careful") && text.contains("heartbeat"), "{text}");
}

#[test]
fn what_raft_calls_an_error_is_a_warning() {
    let speak = || tracing::error!(target: "openraft::raft", "raft stopped");
    let text = logged(Severity::Info, Format::Json, speak);
    assert!(text.starts_with("{\"level\":\"warn\"") && text.contains("raft stopped"), "{text}");
}
