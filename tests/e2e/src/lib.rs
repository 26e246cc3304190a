//! End-to-end tests, with clients that others wrote.
