//! The doors of tinyFaaS: CoAP, HTTP and gRPC, each decode, invoke, encode.
