//! The base images: found, or pulled once.

use crate::engine::{ENGINE_FIX, Engine, explain, is_gone};
use bollard::query_parameters::CreateImageOptionsBuilder;
use faas::{LogStream, Package, PrepareError, Runtime};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the progress of a pull is told.
const PROGRESS: Duration = Duration::from_secs(2);

/// The image that each runtime's handlers are started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Has `node`, and `npm` where functions have dependencies.
    pub nodejs: String,
    /// Has `python3`, and pip where functions have dependencies.
    pub python3: String,
    /// Has `go`; the compiled functions run in it too.
    pub go: String,
    /// Has what the functions' programs and scripts want, a shell for instance; nothing of it is
    /// needed by tinyFaaS.
    pub binary: String,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            nodejs: "node:20-alpine".to_owned(),
            python3: "python:3-alpine".to_owned(),
            go: "golang:alpine".to_owned(),
            binary: "alpine:3".to_owned(),
        }
    }
}

impl Images {
    pub(crate) fn of(&self, runtime: Runtime) -> &str {
        match runtime {
            Runtime::Nodejs => &self.nodejs,
            Runtime::Python3 => &self.python3,
            Runtime::Go => &self.go,
            // WebAssembly has a backend of its own.
            Runtime::Binary | Runtime::Wasm => &self.binary,
        }
    }
}

/// An image as the engine has it now. Its name may mean another one later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the settings have it.
    pub(crate) name: String,
    /// What containers are made of.
    pub(crate) id: String,
}

/// Sees that the engine has an image, and pulls it where it does not.
pub(crate) async fn ensure(
    engine: &Engine,
    image: &str,
    package: &Package,
) -> Result<Image, PrepareError> {
    let found = match engine.docker.inspect_image(image).await {
        Err(error) if is_gone(&error) => {
            pull(engine, image, package).await?;
            engine.docker.inspect_image(image).await
        }
        inspected => inspected,
    };
    let found = found
        .map_err(|error| PrepareError::host(format!("Docker: {}", explain(&error)), ENGINE_FIX))?;
    Ok(Image {
        name: image.to_owned(),
        id: found.id.unwrap_or_else(|| image.to_owned()),
    })
}

async fn pull(engine: &Engine, image: &str, package: &Package) -> Result<(), PrepareError> {
    let teller: Arc<str> = "pull".into();
    let tell = |text: &str| {
        tracing::info!(image, "{text}");
        let text = format!("{image}: {text}");
        package.log.push(&teller, LogStream::Platform, &text);
    };
    tell("is not here and is pulled");
    let options = CreateImageOptionsBuilder::default().from_image(image);
    // Without a tag the engine would pull every one.
    let options = match image.rsplit_once('/').map_or(image, |(_, last)| last) {
        last if last.contains(':') || last.contains('@') => options,
        _ => options.tag("latest"),
    };
    let mut progress = engine
        .docker
        .create_image(Some(options.build()), None, None);
    let mut told = Instant::now();
    while let Some(step) = progress.next().await {
        let failure = match step {
            Ok(step) => {
                let detail = step.progress_detail;
                if told.elapsed() >= PROGRESS
                    && let Some((current, total)) =
                        detail.and_then(|detail| Some((detail.current?, detail.total?)))
                {
                    told = Instant::now();
                    tell(&format!(
                        "{} of {} MB",
                        current / 1_000_000,
                        total / 1_000_000
                    ));
                }
                match step.error_detail.and_then(|detail| detail.message) {
                    None => continue,
                    Some(message) => message,
                }
            }
            Err(error) => explain(&error),
        };
        return Err(PrepareError::runtime(
            format!("the image {image} is not here and could not be pulled ({failure})"),
            format!(
                "on a machine without a registry, bring it: docker load -i FILE, or name one that \
                 is here with --image-{}",
                package.spec.runtime.as_str()
            ),
        ));
    }
    tell("is here now");
    Ok(())
}
