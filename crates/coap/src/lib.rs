//! CoAP without input and output: RFC 7252, RFC 7959 and RFC 7641.
