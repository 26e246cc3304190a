//! Who asked for a deployment.

use std::sync::Arc;

/// Who asked for a deployment, of whom one never takes all that is there for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asker {
    /// The node itself: it brings functions back and deploys its examples.
    Node,
    /// A client, by what tells it from the others, such as its address.
    Client(Arc<str>),
}
