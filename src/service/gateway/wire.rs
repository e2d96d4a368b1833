//! protobuf's wire format, as far as etcd's API uses it: numbers and lengths.

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no message")]
pub(super) struct Malformed;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Appends a base-128 number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a number.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

/// Appends a field that has a length.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(field) << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes a base-128 number off the front.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// Takes a field off the front; fixed-width ones, which the API does not use, as `None`.
pub(super) fn take_field<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Option<Held<'a>>), Malformed> {
    let key = take_varint(bytes)?;
    let field = u32::try_from(key >> 3).map_err(|_| Malformed)?;
    let held = match key & 7 {
        0 => Some(Held::Number(take_varint(bytes)?)),
        1 => take(bytes, 8).map(|_| None)?,
        2 => {
            let length = usize::try_from(take_varint(bytes)?).map_err(|_| Malformed)?;
            Some(Held::Bytes(take(bytes, length)?))
        }
        5 => take(bytes, 4).map(|_| None)?,
        _ => return Err(Malformed),
    };
    Ok((field, held))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}
