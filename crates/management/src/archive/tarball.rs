//! Tars that gzip compressed.

use super::ArchiveError;
use super::path::{self, Named};
use super::tree::Tree;
use flate2::read::MultiGzDecoder;
use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;
use tar::{Archive, Entry, EntryType};

/// What an entry takes in the stream besides its contents, about: header, padding, long names.
const ENTRY_OVERHEAD_BYTES: u64 = 4096;

/// What the bounded stream and its user tell each other; the tar reader stands between.
#[derive(Debug, Default)]
struct Shared {
    /// Why the stream was cut: the tar reader wraps the stream's own errors.
    refusal: RefCell<Option<ArchiveError>>,
    /// What was read of the header that is being read; none outside of headers.
    header_bytes: Cell<Option<u64>>,
}

/// Writes every entry of the tar into the tree.
pub(crate) fn unpack(archive: &[u8], tree: &mut Tree<'_>) -> Result<(), ArchiveError> {
    let shared = Rc::new(Shared::default());
    let reader = Bounded::new(archive, tree, Rc::clone(&shared));
    let result = add_entries(reader, &shared, tree);
    match shared.refusal.take() {
        Some(reason) => Err(reason),
        None => result,
    }
}

fn add_entries(
    reader: Bounded<'_>,
    shared: &Shared,
    tree: &mut Tree<'_>,
) -> Result<(), ArchiveError> {
    let mut tar = Archive::new(reader);
    let mut entries = tar.entries().map_err(damaged)?;
    loop {
        shared.header_bytes.set(Some(0));
        let Some(entry) = entries.next() else {
            break;
        };
        let mut entry = entry.map_err(damaged)?;
        shared.header_bytes.set(None);
        add_entry(&mut entry, tree)?;
        // What was passed over counts as contents, not as the next header.
        io::copy(&mut entry, &mut io::sink()).map_err(damaged)?;
    }
    shared.header_bytes.set(None);
    // What follows the end mark is read too, so that gzip's checksum is looked at.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

fn add_entry(entry: &mut Entry<'_, Bounded<'_>>, tree: &mut Tree<'_>) -> Result<(), ArchiveError> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    tree.count_entry()?;
    let name = text(&entry.path_bytes())?;
    let Named::Entry(path) = path::parse(&name, tree.limits())? else {
        return Ok(());
    };
    if kind.is_dir() {
        return tree.add_folder(&path);
    }
    if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        let mode = entry.header().mode().map_err(damaged)?;
        return tree.add_file(&path, mode & 0o111 != 0, entry);
    }
    let Some(target) = entry.link_name_bytes() else {
        return Err(ArchiveError::Special(path));
    };
    let target = text(&target)?;
    if kind.is_symlink() {
        tree.add_link(&path, &target)
    } else if kind.is_hard_link() {
        match path::parse(&target, tree.limits())? {
            Named::Entry(target) => tree.add_copy(&path, &target),
            Named::Nothing => Err(ArchiveError::LinkBroken { path, target }),
        }
    } else {
        Err(ArchiveError::Special(path))
    }
}

fn text(name: &[u8]) -> Result<String, ArchiveError> {
    let text = std::str::from_utf8(name).map(str::to_owned);
    text.map_err(|_not_utf8| ArchiveError::NameNotText(String::from_utf8_lossy(name).into_owned()))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the function that map_err takes"
)]
fn damaged(error: io::Error) -> ArchiveError {
    ArchiveError::Damaged(error.to_string())
}

/// The unpacked stream, counted: a header may claim anything.
struct Bounded<'a> {
    stream: MultiGzDecoder<&'a [u8]>,
    bytes: u64,
    bytes_max: u64,
    ratio_bytes_max: u64,
    ratio_max: u64,
    /// What a header may take with its long names, which the tar reader keeps in memory.
    header_bytes_max: u64,
    unpacked_bytes_max: u64,
    shared: Rc<Shared>,
}

impl<'a> Bounded<'a> {
    fn new(archive: &'a [u8], tree: &Tree<'_>, shared: Rc<Shared>) -> Self {
        let limits = tree.limits();
        let overhead = limits.archive_files_max as u64 * ENTRY_OVERHEAD_BYTES;
        Self {
            stream: MultiGzDecoder::new(archive),
            bytes: 0,
            bytes_max: limits.archive_unpacked_bytes_max.saturating_add(overhead),
            ratio_bytes_max: tree.ratio_bytes_max(),
            ratio_max: limits.archive_ratio_max,
            header_bytes_max: limits.archive_header_bytes_max,
            unpacked_bytes_max: limits.archive_unpacked_bytes_max,
            shared,
        }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.bytes += read as u64;
        let in_header = self.shared.header_bytes.get();
        let in_header = in_header.map(|bytes| bytes + read as u64);
        self.shared.header_bytes.set(in_header);
        let refusal = if self.bytes > self.bytes_max {
            ArchiveError::UnpackedTooLarge {
                bytes_max: self.unpacked_bytes_max,
            }
        } else if self.bytes > self.ratio_bytes_max {
            ArchiveError::Ratio {
                ratio_max: self.ratio_max,
            }
        } else if in_header.is_some_and(|bytes| bytes > self.header_bytes_max) {
            ArchiveError::Damaged("a header is too large".to_owned())
        } else {
            return Ok(read);
        };
        *self.shared.refusal.borrow_mut() = Some(refusal);
        Err(io::Error::other("over a bound"))
    }
}
