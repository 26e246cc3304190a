//! Deploying the examples at start.

use crate::config::Config;
use crate::examples::{Bundled, EXAMPLES};
use faas::{Entry, FunctionLimits, FunctionSpec, Limits, Router, Runtime};
use futures_util::future::join_all;
use management::{DeployRequest, Management, Source};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Where it is kept what was deployed, so that a restart does not do it again.
const FILE: &str = "examples.json";

/// How often to look whether a stored function is back.
const LOOK: Duration = Duration::from_millis(20);

/// What came of one example.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) result: Result,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Result {
    /// It was deployed.
    Deployed(Runtime),
    /// It was there already.
    Unchanged(Runtime),
    /// It does not run here, and why.
    Failed(String),
}

/// What was deployed: the digest of each example as it is built in, and as it was stored.
type Kept = BTreeMap<String, (u64, String)>;

/// Deploys every example and tells them in their order, when all are done: so no line of the log
/// comes between. An example that does not run here fails alone.
pub(crate) async fn deploy(
    management: &Management,
    (router, limits): (&Router, &Limits),
    config: &Config,
    tell: impl Fn(&Outcome),
) {
    let path = config.data_dir.join(FILE);
    let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
    let mut kept: Kept = serde_json::from_str(&text).unwrap_or_default();
    let before = kept.clone();
    let one = |example: &'static Bundled| {
        let kept = before.get(example.name);
        async move {
            (
                example,
                deploy_one(example, management, router, limits, kept).await,
            )
        }
    };
    let deployed = join_all(EXAMPLES.iter().map(one)).await;
    for (example, (result, digest)) in deployed {
        if let Some(digest) = digest {
            kept.insert(example.name.to_owned(), (fingerprint(example), digest));
        }
        let name = example.name;
        tell(&Outcome { name, result });
    }
    // Without the file the next start deploys again, which does no harm.
    let text = serde_json::to_string(&kept).expect("the shape has only texts and numbers");
    if let Err(error) = tokio::fs::write(&path, text).await {
        tracing::warn!(%error, "what examples are deployed could not be kept");
    }
}

async fn deploy_one(
    example: &'static Bundled,
    management: &Management,
    router: &Router,
    node_limits: &Limits,
    kept: Option<&(u64, String)>,
) -> (Result, Option<String>) {
    let failed = |reason: String| (Result::Failed(reason), None);
    let Some(runtime) = example.runtime() else {
        return failed("its files fit no runtime".to_owned());
    };
    let name = match example.name.parse() {
        Ok(name) => name,
        Err(error) => return failed(format!("{error}")),
    };
    if let Some((known, digest)) = kept
        && *known == fingerprint(example)
        && restored_digest(management, router, example.name)
            .await
            .as_ref()
            == Some(digest)
    {
        return (Result::Unchanged(runtime), None);
    }
    let mut limits = FunctionLimits::default();
    limits.memory_bytes_max = runtime.default_memory(limits.memory_bytes_max, node_limits);
    let spec = FunctionSpec {
        name,
        runtime,
        entry: Entry::Convention,
        handlers: runtime.default_handlers(node_limits),
        envs: Vec::new(),
        network: faas::Network::None,
        allow_hosts: Vec::new(),
        allow_scripts: false,
        cors: None,
        limits,
    };
    let source = Source::Files(example.sources());
    match management.deploy(DeployRequest { spec, source }).await {
        Ok(deployed) => (Result::Deployed(runtime), Some(deployed.digest)),
        Err(error) => failed(format!("{error}; {}", error.fix())),
    }
}

/// The digest of what serves the name, once the stored function is back; none where there is none
/// or it could not be brought back.
async fn restored_digest(management: &Management, router: &Router, name: &str) -> Option<String> {
    loop {
        let route = router.find(name)?;
        if route.deployment().is_some() {
            return management.digest(name);
        }
        if route.failure().is_some() {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells one version of an example from another. A hash that changes with the compiler costs one
/// deployment.
fn fingerprint(example: &Bundled) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in example.files {
        (file.path, file.contents, file.is_executable).hash(&mut hasher);
    }
    hasher.finish()
}
