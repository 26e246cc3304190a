//! Calling over CoAP.

use super::{Answer, Call};
use anyhow::{Result, bail};

pub(super) fn call(call: &Call) -> Result<Answer> {
    bail!("can't call {} over CoAP yet", call.target.text)
}
