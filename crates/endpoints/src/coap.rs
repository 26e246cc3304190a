//! The CoAP endpoint.
