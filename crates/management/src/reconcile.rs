//! What is known after a start: from the store and from the manifests, where they differ.

use crate::store::{Fault, Record};
use std::collections::BTreeMap;

/// Every function, and what must be written so that store and manifests agree.
#[derive(Debug, Default)]
pub(crate) struct Reconciled {
    /// Every function.
    pub(crate) records: Vec<Record>,
    /// Those that the store lacks, or has otherwise.
    pub(crate) for_store: Vec<Record>,
    /// Those that have no manifest.
    pub(crate) for_manifests: Vec<Record>,
}

/// Brings together what the store and the manifests say. A manifest is right where its code is
/// there; what a newer tinyFaaS wrote stays as it is.
pub(crate) fn reconcile(
    stored: Vec<Record>,
    manifests: Vec<Record>,
    has_code: impl Fn(&str) -> bool,
) -> Reconciled {
    let by_name = |record: Record| (record.spec.name.clone(), record);
    let mut manifests: BTreeMap<_, _> = manifests.into_iter().map(by_name).collect();
    let mut reconciled = Reconciled::default();
    for row in stored {
        let manifest = manifests.remove(&row.spec.name);
        let Some(manifest) = manifest.filter(|manifest| manifest.fault.is_none()) else {
            if row.fault.is_none() {
                reconciled.for_manifests.push(row.clone());
            }
            reconciled.records.push(row);
            continue;
        };
        let is_newer = row.fault == Some(Fault::Newer);
        if is_newer || is_same(&row, &manifest) {
            reconciled.records.push(row);
        } else if row.fault.is_some() || has_code(&manifest.digest) {
            reconciled.for_store.push(manifest.clone());
            reconciled.records.push(manifest);
        } else {
            reconciled.for_manifests.push(row.clone());
            reconciled.records.push(row);
        }
    }
    for manifest in manifests.into_values() {
        if manifest.fault.is_none() {
            reconciled.for_store.push(manifest.clone());
        }
        reconciled.records.push(manifest);
    }
    reconciled
}

fn is_same(row: &Record, manifest: &Record) -> bool {
    row.fault.is_none()
        && row.spec == manifest.spec
        && row.digest == manifest.digest
        && row.deployed_at_ms == manifest.deployed_at_ms
}
