//! Failpoints over HTTP, as gofail serves them: one request a connection, on a thread of its own, so that a member
//! whose runtime stands still can be told to go on.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use parking_lot::Mutex;

use super::points::{Point, PointError, disable, enable, list, pairs, status};
use crate::support::spawn::thread;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request that are read at most.
const REQUEST_MAX: u64 = 64 << 10;

type Points = &'static [&'static Point];

/// A status and a text.
type Answer = (u16, String);

/// Serves `points` at `address` for as long as the process lives, holding `answering` while it answers.
pub(super) fn serve(
    address: &str,
    points: Points,
    answering: &'static Mutex<()>,
) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let run = move || {
        for stream in listener.incoming() {
            let served = stream.and_then(|stream| converse(&stream, points, answering));
            if let Err(why) = served {
                tracing::debug!(error = %why, "a request for failpoints was not served");
            }
        }
    };
    // It ends with the process.
    thread("failpoints", run).map(drop)
}

fn converse(stream: &TcpStream, points: Points, answering: &Mutex<()>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.take(REQUEST_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) =
        (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut length = 0_u64;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    let _answering = answering.lock();
    let (status, text) = answer(points, &method, &path, &body);
    let reason = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n",
        reason.unwrap_or("")
    )?;
    // An answer without a body has no length either.
    match status {
        204 => write!(stream, "\r\n")?,
        _ => write!(stream, "Content-Length: {}\r\n\r\n{text}", text.len())?,
    }
    stream.flush()
}

fn answer(points: Points, method: &str, path: &str, body: &str) -> Answer {
    let Some(name) = path.strip_prefix('/') else {
        return (400, "malformed request URI\n".to_owned());
    };
    match method {
        "GET" => look(points, name),
        "PUT" => set(points, name, body),
        "DELETE" => match disable(points, name) {
            Ok(()) => (204, String::new()),
            Err(why) => (400, format!("failed to delete failpoint {why}\n")),
        },
        _ => (405, "Method not allowed\n".to_owned()),
    }
}

fn look(points: Points, name: &str) -> Answer {
    if name.is_empty() {
        return (200, list(points));
    }
    let failed = |status, why: PointError| (status, format!("failed to GET: {why}\n"));
    match name.strip_suffix("/count") {
        Some(name) => match status(points, name) {
            Ok((_, count)) => (200, count.to_string()),
            Err(why @ PointError::Unknown) => failed(404, why),
            Err(why @ (PointError::Disarmed | PointError::Terms)) => failed(500, why),
        },
        None => match status(points, name) {
            Ok((terms, _)) => (200, format!("{terms}\n")),
            Err(why) => failed(404, why),
        },
    }
}

/// Arms one, or by the name `failpoints` several at once.
fn set(points: Points, name: &str, body: &str) -> Answer {
    let several = match name.eq_ignore_ascii_case("failpoints") {
        true => pairs(body),
        false => Ok(vec![(name, body)]),
    };
    let several = match several {
        Ok(several) => several,
        Err(why) => return (400, format!("fail to parse failpoint: {why}\n")),
    };
    for (name, terms) in several {
        if let Err(why) = enable(points, name, terms) {
            return (400, format!("fail to set failpoint: {why}\n"));
        }
    }
    (204, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    static HERE: Point = Point::new("here");
    static THERE: Point = Point::new("there");
    static POINTS: [&Point; 2] = [&HERE, &THERE];

    #[test]
    fn requests_are_answered_as_by_gofail() {
        let ask = |method, path, body| answer(&POINTS, method, path, body);
        let text = |status, text: &str| (status, text.to_owned());
        for (method, path, body, want) in [
            ("GET", "/", "", text(200, "here=\nthere=\n")),
            ("GET", "/here", "", text(404, "failed to GET: failpoint: failpoint is disabled\n")),
            ("PUT", "/here", "sleep(\"10s\")", text(204, "")),
            ("GET", "/here", "", text(200, "sleep(\"10s\")\n")),
            ("GET", "/here/count", "", text(200, "0")),
            (
                "GET",
                "/x/count",
                "",
                text(404, "failed to GET: failpoint: failpoint does not exist\n"),
            ),
            (
                "PUT",
                "/x",
                "panic",
                text(400, "fail to set failpoint: failpoint: failpoint does not exist\n"),
            ),
            (
                "PUT",
                "/here",
                "pnic",
                text(400, "fail to set failpoint: failpoint: could not parse terms\n"),
            ),
            ("DELETE", "/here", "", text(204, "")),
            (
                "DELETE",
                "/here",
                "",
                text(400, "failed to delete failpoint failpoint: failpoint is disabled\n"),
            ),
            ("PUT", "/failpoints", "here=print;there=off", text(204, "")),
            ("GET", "/", "", text(200, "here=print\nthere=off\n")),
            (
                "PUT",
                "/failpoints",
                "here",
                text(400, "fail to parse failpoint: bad failpoint \"here\"\n"),
            ),
            ("POST", "/here", "", text(405, "Method not allowed\n")),
            ("GET", "", "", text(400, "malformed request URI\n")),
        ] {
            assert_eq!(ask(method, path, body), want, "{method} {path} {body}");
        }
    }

    #[test]
    fn a_request_over_the_wire_arms_a_point() {
        static POINT: Point = Point::new("wire");
        static POINTS: [&Point; 1] = [&POINT];
        static ANSWERING: Mutex<()> = Mutex::new(());
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        serve(&free, &POINTS, &ANSWERING).unwrap();
        let mut stream = TcpStream::connect(&free).unwrap();
        let request = "PUT /wire HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nreturn(\"y\")";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        assert_eq!(POINT.told().as_deref(), Some("y"));
    }
}
