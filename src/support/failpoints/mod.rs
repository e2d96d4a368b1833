//! Places where a test may make a member wait, fail or end: etcd's failpoints by their names, with gofail's protocol
//! (go.etcd.io/gofail, `runtime/{http,terms}.go`), so that etcd's own suites can drive a build that has them.
//!
//! ```text
//!   GOFAIL_FAILPOINTS=name=terms;name=terms ──┐
//!   GOFAIL_HTTP=host:port: GET, PUT, DELETE ──┴──▶ Point (points.rs): its terms ◀── failpoint!(name) in the code
//! ```
//!
//! Three forms: `failpoint!(name)` holds the thread, `failpoint!(wait name)` waits within a task, and
//! `failpoint!(name, |text| ...)` runs the expression with what `return("text")` says. Decision 14 has the places.
//!
//! **Invariant:** without the cargo feature `failpoints`, which no release has, a failpoint is nothing at all.
//! **Invariant:** what is armed belongs to the process, not to a member: one process of a test runs one member.

#[cfg(feature = "failpoints")]
mod http;
#[cfg(feature = "failpoints")]
mod points;
#[cfg(feature = "failpoints")]
mod terms;

#[cfg(feature = "failpoints")]
pub(crate) use points::{arm, point};

#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    (wait $name:ident) => {
        $crate::support::failpoints::point::$name.wait().await
    };
    ($name:ident, |$text:ident| $then:expr) => {
        if let Some($text) = $crate::support::failpoints::point::$name.told() {
            $then
        }
    };
    ($name:ident) => {
        $crate::support::failpoints::point::$name.reach()
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($($place:tt)*) => {};
}

pub(crate) use failpoint;
