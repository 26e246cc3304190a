//! `tinyfaas backup` and `restore`.

use super::api::Api;
use crate::cli::{Backup, Restore};
use crate::config::{Config, Flags};
use crate::output;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use ureq::SendBody;

/// Writes the copy that the node makes. The file has its name once it is whole and on the disk.
pub(crate) fn backup(args: &Backup) -> Result<()> {
    let api = Api::new(&args.node)?;
    let folder = args.file.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    // For its owner only: it has the variables of functions.
    let staged = tempfile::NamedTempFile::new_in(folder);
    let mut staged = staged.with_context(|| format!("write to {}", folder.display()))?;
    output::progress("the node packs its functions");
    let response = api.open("GET", "/v1/backup", None, SendBody::none())?;
    let left_out: Vec<String> = response
        .headers()
        .get_all("x-tinyfaas-left-out")
        .iter()
        .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
        .collect();
    let body = response.into_body().into_with_config().limit(u64::MAX);
    let bytes = std::io::copy(&mut body.reader(), &mut staged)
        .context("the backup broke off; try again")?;
    staged.as_file().sync_all()?;
    staged
        .persist(&args.file)
        .with_context(|| format!("write {}", args.file.display()))?;
    File::open(folder)?.sync_all()?;
    output::progress_done();
    let (file, kib) = (args.file.display(), bytes.div_ceil(1024));
    if left_out.is_empty() {
        return output::line(format_args!(
            "{file} has everything that is deployed ({kib} KiB)"
        ));
    }
    output::line(format_args!(
        "{file} has every function but the damaged ones ({kib} KiB)"
    ))?;
    anyhow::bail!(
        "these functions are damaged on the node's disk and not in the backup: {}; deploy them \
         again, and make another backup",
        left_out.join(", ")
    )
}

/// Brings a backup back where no node runs.
pub(crate) fn restore(args: &Restore) -> Result<()> {
    let data_dir = args.data_dir.as_ref().map(|folder| folder.as_os_str());
    let variable = |name: &str| std::env::var(name).ok();
    let config = Config::load(&Flags::of("data-dir", data_dir), None, &variable)?;
    let file = File::open(&args.file);
    let file = file.with_context(|| format!("read {}", args.file.display()))?;
    let count = management::restore(BufReader::new(file), &config.data_dir)?;
    output::line(format_args!(
        "{count} functions are in {}; start the node with: tinyfaas serve",
        config.data_dir.display()
    ))
}
