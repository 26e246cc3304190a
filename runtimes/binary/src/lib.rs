//! The shim of the binary runtime: runs fn.sh for every call.
