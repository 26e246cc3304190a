//! Content-Format numbers and the media types that they stand for (RFC 7252, section 12.3, and
//! the registry that it begins).

/// Each number with its media type; the first of a type is the one that is sent.
const FORMATS: [(u16, &str); 22] = [
    (0, "text/plain;charset=utf-8"),
    (40, "application/link-format"),
    (41, "application/xml"),
    (42, "application/octet-stream"),
    (47, "application/exi"),
    (50, "application/json"),
    (51, "application/json-patch+json"),
    (52, "application/merge-patch+json"),
    (60, "application/cbor"),
    (61, "application/cwt"),
    (62, "application/multipart-core"),
    (63, "application/cbor-seq"),
    (21, "image/gif"),
    (22, "image/jpeg"),
    (23, "image/png"),
    (110, "application/senml+json"),
    (111, "application/sensml+json"),
    (112, "application/senml+cbor"),
    (113, "application/sensml+cbor"),
    (310, "application/senml+xml"),
    (20000, "text/css"),
    (30000, "image/svg+xml"),
];

/// Text in UTF-8.
pub(super) const TEXT: u16 = 0;

/// Bytes of any kind.
pub(super) const BINARY: u16 = 42;

/// The media type of a number, where it is known.
pub(super) fn media_type(format: u16) -> Option<&'static str> {
    let known = FORMATS.iter().find(|(number, _)| *number == format);
    known.map(|(_, media_type)| *media_type)
}

/// The number of a media type, where it has one. Parameters but a charset that is not UTF-8's
/// are passed over.
pub(super) fn number(content_type: &str) -> Option<u16> {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next()?;
    let has_other_charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .any(|(_, charset)| !is_utf8(charset.trim().trim_matches('"')));
    if has_other_charset {
        return None;
    }
    let known = FORMATS.iter().find(|(_, media_type)| {
        let known = media_type.split(';').next().unwrap_or_default();
        known.eq_ignore_ascii_case(essence)
    });
    known.map(|(number, _)| *number)
}

fn is_utf8(charset: &str) -> bool {
    // US-ASCII is a part of it.
    let names = ["utf-8", "utf8", "us-ascii"];
    names.iter().any(|name| name.eq_ignore_ascii_case(charset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_and_numbers_match() {
        for (format, media_type_of_it) in FORMATS {
            assert_eq!(media_type(format), Some(media_type_of_it));
            assert_eq!(number(media_type_of_it), Some(format));
        }
        assert_eq!(media_type(65000), None);
    }

    #[test]
    fn parameters_are_understood() {
        let check = |content_type: &str, format: Option<u16>| {
            assert_eq!(number(content_type), format, "{content_type}");
        };
        check("text/plain", Some(0));
        check("Text/Plain; Charset=\"UTF-8\"", Some(0));
        check("text/plain; charset=iso-8859-1", None);
        check("application/json; charset=utf-8", Some(50));
        check("application/json; profile=x", Some(50));
        check("text/html; charset=utf-8", None);
        check("", None);
        check(";;;", None);
    }
}
