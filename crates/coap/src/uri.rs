//! Between the options Uri-Path and Uri-Query and the text of a URI, RFC 7252 section 6.

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Whether a byte stands for itself in a path segment (RFC 3986 section 3.3).
fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Whether a byte stands for itself in an argument of a query (RFC 7252 section 6.5, step 7).
fn is_query(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$'()*+,;=:@/?".contains(&byte)
}

/// Appends a segment with its leading slash.
pub(crate) fn push_segment(path: &mut String, segment: &str) {
    path.push('/');
    push_escaped(path, segment, is_path);
}

/// Appends an argument, behind `&` where it is not the first.
pub(crate) fn push_argument(query: &mut String, argument: &str, is_first: bool) {
    if !is_first {
        query.push('&');
    }
    push_escaped(query, argument, is_query);
}

fn push_escaped(text: &mut String, part: &str, is_plain: fn(u8) -> bool) {
    if part.bytes().all(is_plain) {
        return text.push_str(part);
    }
    for byte in part.bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 0xf)]));
        }
    }
}

/// The segments of a path, unescaped, as Uri-Path options carry them (section 6.4, step 8).
#[must_use]
pub fn segments(path: &str) -> Vec<Vec<u8>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Vec::new();
    }
    path.split('/').map(unescape).collect()
}

/// The arguments of a query without its `?`, unescaped, as Uri-Query options carry them.
#[must_use]
pub fn arguments(query: &str) -> Vec<Vec<u8>> {
    if query.is_empty() {
        return Vec::new();
    }
    query.split('&').map(unescape).collect()
}

fn unescape(part: &str) -> Vec<u8> {
    let bytes = part.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| part.get(at + 1..at + 3)).flatten();
        let escaped = escaped.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            plain.push(byte);
            at += 3;
        } else {
            plain.push(byte);
            at += 1;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped_where_a_path_needs_it() {
        let check = |segments: &[&str], path: &str| {
            let mut text = String::new();
            segments.iter().for_each(|s| push_segment(&mut text, s));
            assert_eq!(text, path);
            let back: Vec<_> = segments.iter().map(|s| s.as_bytes().to_vec()).collect();
            assert_eq!(super::segments(path), back);
        };
        check(&["sieve", "primes"], "/sieve/primes");
        check(&["a/b"], "/a%2Fb");
        check(&["a%2Fb", ""], "/a%252Fb/");
        check(&["ü", "a b"], "/%C3%BC/a%20b");
    }

    #[test]
    fn arguments_are_joined_and_escaped() {
        let mut query = String::new();
        push_argument(&mut query, "a=1&2", true);
        push_argument(&mut query, "", false);
        push_argument(&mut query, "x/y?", false);
        assert_eq!(query, "a=1%262&&x/y?");
        assert_eq!(arguments(&query), [&b"a=1&2"[..], b"", b"x/y?"]);
        assert_eq!(arguments("%zz%4"), [b"%zz%4"]);
    }
}
