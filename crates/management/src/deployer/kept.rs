//! What a redeployment takes over from the function that is known: settings, or the code.

use super::{Deployer, now_ms};
use crate::applies;
use crate::bad_field::BadField;
use crate::codes::Code;
use crate::functions::Function;
use crate::named::Named;
use crate::order::{self, DeployError, Order, Source};
use crate::store::Record;
use crate::undecided::Undecided;
use faas::FunctionSpec;
use std::sync::Arc;

impl Deployer {
    /// Fills in what the order does not name. Returns the names of what differs from the defaults.
    pub(super) fn keep_settings(
        &self,
        order: &mut Order,
        known: Option<&Function>,
    ) -> Result<Vec<&'static str>, BadField> {
        let limits = &self.options.limits;
        let readable = known.filter(|known| known.record.fault.is_none());
        let Some(known) = readable else {
            return Ok(Vec::new());
        };
        let spec = &known.record.spec;
        if matches!(order.source, Source::Kept) {
            order.spec.entry = spec.entry.clone();
            if order.undecided.has_no_runtime {
                order.spec.runtime = spec.runtime;
                order.undecided.has_no_runtime = false;
            }
        }
        if order.named.is_reset {
            return Ok(Vec::new());
        }
        let named = order.named.clone();
        let kept = named.keep(&mut order.spec, &mut order.undecided, spec, limits);
        order::check(&order.spec, limits)?;
        Ok(kept)
    }

    /// The code that the function has, for other settings. Blocks on the disk.
    pub(super) fn reuse(
        &self,
        mut spec: FunctionSpec,
        undecided: Undecided,
        named: &Named,
        known: Option<&Arc<Function>>,
    ) -> Result<(Record, Code), DeployError> {
        let bad = |reason: &str| BadField::new("name", reason, "deploy the function with its code");
        let known = known.ok_or_else(|| bad("there is no such function"))?;
        if known.record.fault.is_some() {
            return Err(bad("what is stored of the function can't be read").into());
        }
        let code = self.codes.refer(known.code.digest());
        code.set_forgotten();
        if !code.is_unharmed() {
            return Err(bad("the function's code is damaged on the disk").into());
        }
        undecided.decide(&mut spec, &code.path(), &self.options.limits)?;
        applies::check(&spec, named, self.options.backend.name())?;
        let record = Record {
            spec: Arc::new(spec),
            deployed_at_ms: now_ms(),
            ..known.record.clone()
        };
        Ok((record, code))
    }
}
