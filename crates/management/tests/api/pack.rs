//! Packing archives, good and bad ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{Cursor, Write};
use tar::{EntryType, Header};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A zip of files, each a name and contents.
pub(crate) fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in files {
        let options = SimpleFileOptions::default().unix_permissions(0o644);
        zip.start_file(*name, options).unwrap();
        zip.write_all(contents.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A zip with a `fn.py` of that text.
pub(crate) fn function(text: &str) -> Vec<u8> {
    zip(&[("fn.py", text)])
}

/// The body of `POST /upload` for a function with a `fn.py` of that text.
pub(crate) fn upload(name: &str, text: &str) -> String {
    let zip = STANDARD.encode(function(text));
    format!(r#"{{"name":"{name}","env":"python3","threads":1,"zip":"{zip}","envs":[]}}"#)
}

/// A zip with links, each a name and target.
pub(crate) fn zip_links(files: &[(&str, &str)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(contents.as_bytes()).unwrap();
    }
    for (name, target) in links {
        zip.add_symlink(*name, *target, SimpleFileOptions::default())
            .unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An entry of a tar: its type, name, target and contents.
pub(crate) type TarEntry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// A tar that believes every name.
pub(crate) fn tar(entries: &[TarEntry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, name, target, contents) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if contents.starts_with(b"#!") {
            0o4755
        } else {
            0o644
        });
        header.set_size(contents.len() as u64);
        header.set_cksum();
        tar.append(&header, *contents).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn tar_gz(entries: &[TarEntry<'_>]) -> Vec<u8> {
    gzip(&tar(entries))
}

/// Replaces every occurrence of `from`, of the same length.
pub(crate) fn patch(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut found = 0;
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "{from:?} does not occur");
    bytes
}

/// Sets a 16-bit field in every local and central header of a zip.
pub(crate) fn patch_headers(
    mut bytes: Vec<u8>,
    local_offset: usize,
    central_offset: usize,
    value: u16,
) -> Vec<u8> {
    for at in 0..bytes.len() - 4 {
        let offset = match &bytes[at..at + 4] {
            b"PK\x03\x04" => local_offset,
            b"PK\x01\x02" => central_offset,
            _ => continue,
        };
        bytes[at + offset..at + offset + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}
