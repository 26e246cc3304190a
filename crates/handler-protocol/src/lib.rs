//! The frames between the proxy and a handler, and the connection that carries them.
