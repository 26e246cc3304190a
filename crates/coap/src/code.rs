//! Codes of requests and responses, RFC 7252 section 12.1.

use std::fmt;

/// A code: three bits of class and five of detail, written `2.05`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u8);

macro_rules! codes {
    ($($name:ident $class:literal $detail:literal $doc:literal)*) => {
        impl Code {
            $(#[doc = $doc] pub const $name: Self = Self::new($class, $detail);)*
        }
    };
}

codes! {
    EMPTY 0 0 "0.00, an empty message."
    GET 0 1 "0.01 GET."
    POST 0 2 "0.02 POST."
    PUT 0 3 "0.03 PUT."
    DELETE 0 4 "0.04 DELETE."
    FETCH 0 5 "0.05 FETCH, RFC 8132."
    PATCH 0 6 "0.06 PATCH, RFC 8132."
    IPATCH 0 7 "0.07 iPATCH, RFC 8132."
    CREATED 2 1 "2.01 Created."
    DELETED 2 2 "2.02 Deleted."
    VALID 2 3 "2.03 Valid."
    CHANGED 2 4 "2.04 Changed."
    CONTENT 2 5 "2.05 Content."
    CONTINUE 2 31 "2.31 Continue, RFC 7959."
    BAD_REQUEST 4 0 "4.00 Bad Request."
    UNAUTHORIZED 4 1 "4.01 Unauthorized."
    BAD_OPTION 4 2 "4.02 Bad Option."
    FORBIDDEN 4 3 "4.03 Forbidden."
    NOT_FOUND 4 4 "4.04 Not Found."
    METHOD_NOT_ALLOWED 4 5 "4.05 Method Not Allowed."
    NOT_ACCEPTABLE 4 6 "4.06 Not Acceptable."
    REQUEST_ENTITY_INCOMPLETE 4 8 "4.08 Request Entity Incomplete, RFC 7959."
    CONFLICT 4 9 "4.09 Conflict, RFC 8132."
    PRECONDITION_FAILED 4 12 "4.12 Precondition Failed."
    REQUEST_ENTITY_TOO_LARGE 4 13 "4.13 Request Entity Too Large."
    UNSUPPORTED_CONTENT_FORMAT 4 15 "4.15 Unsupported Content-Format."
    UNPROCESSABLE_ENTITY 4 22 "4.22 Unprocessable Entity, RFC 8132."
    TOO_MANY_REQUESTS 4 29 "4.29 Too Many Requests, RFC 8516."
    INTERNAL_SERVER_ERROR 5 0 "5.00 Internal Server Error."
    NOT_IMPLEMENTED 5 1 "5.01 Not Implemented."
    BAD_GATEWAY 5 2 "5.02 Bad Gateway."
    SERVICE_UNAVAILABLE 5 3 "5.03 Service Unavailable."
    GATEWAY_TIMEOUT 5 4 "5.04 Gateway Timeout."
    PROXYING_NOT_SUPPORTED 5 5 "5.05 Proxying Not Supported."
}

impl Code {
    /// The code `class.detail`; higher bits than 3 and 5 are cut off.
    #[must_use]
    pub const fn new(class: u8, detail: u8) -> Self {
        Self((class << 5) | (detail & 0x1f))
    }

    /// The code as it is sent.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte that is sent.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// The digit before the point.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// The digits behind the point.
    #[must_use]
    pub const fn detail(self) -> u8 {
        self.0 & 0x1f
    }

    /// Whether it is a request's, known or not.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether it is a response's, known or not.
    #[must_use]
    pub const fn is_response(self) -> bool {
        matches!(self.class(), 2 | 4 | 5)
    }

    /// The name of a request's method, where it is one that this crate knows.
    #[must_use]
    pub const fn method(self) -> Option<&'static str> {
        match self {
            Self::GET => Some("GET"),
            Self::POST => Some("POST"),
            Self::PUT => Some("PUT"),
            Self::DELETE => Some("DELETE"),
            Self::FETCH => Some("FETCH"),
            Self::PATCH => Some("PATCH"),
            Self::IPATCH => Some("iPATCH"),
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.detail())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
