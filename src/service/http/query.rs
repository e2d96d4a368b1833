//! The query of a URL, as Go's `url.ParseQuery` reads it.

/// Every value of `name`, in order.
pub(super) fn values(query: Option<&str>, name: &str) -> Vec<String> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = unescape(key)?;
            (key == name).then(|| unescape(value))?
        })
        .collect()
}

/// `%xx` and `+`; `None` if an escape is broken.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
            other => bytes.push(other),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let query = Some("exclude=NOSPACE&exclude=a%20b+c&verbose&x=%zz&%65xclude=d");
        assert_eq!(values(query, "exclude"), ["NOSPACE", "a b c", "d"]);
        assert_eq!(values(query, "verbose"), [""]);
        assert!(values(query, "x").is_empty());
        assert!(values(None, "x").is_empty());
    }
}
