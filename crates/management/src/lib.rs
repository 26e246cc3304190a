//! The management service: deploys functions and keeps them.
