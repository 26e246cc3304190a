//! Metadata that is not for functions, nor from them.

/// Whether a field belongs to gRPC itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("grpc-") || matches!(name, "te" | "content-type" | "content-length")
}
