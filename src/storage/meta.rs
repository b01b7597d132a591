//! The meta file: whose data directory this is, how often it was started, whom it has met.
//!
//! Text lines with a checksum, replaced atomically: temporary file, fdatasync, rename, fsync of the
//! directory. Called when a directory is opened and when a peer is recorded. Never made anew while
//! there is a log: a node that forgot its boots could be taken for another.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileKind, Open};
use super::error::{DiskError, StorageError};
use crate::limits;
use crate::types::{
    Boot, ClusterId, Divergence, Identity, Incarnation, Lineage, LogIndex, Nonce, ServerId,
};

/// The first line; a newer version's differs.
const FORMAT: &str = "raftkv meta 1";

/// The meta file's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The digest of the cluster's name alone, which is all that the log's segments bear: an
    /// incarnation belongs to one lineage.
    pub named: ClusterId,
    /// The digest of the cluster's name and lineage. Not in the file: it follows from them.
    pub cluster: ClusterId,
    /// Which of the clusters of that name: it changes when a blank server is admitted, never later.
    pub lineage: Lineage,
    /// The name itself, escaped so that it is one line.
    pub cluster_name: String,
    /// The server's id.
    pub server: ServerId,
    /// The directory's random number.
    pub incarnation: Incarnation,
    /// How often it was started. 0: its log was not yet made.
    pub boot: Boot,
    /// Whether it remembers all that its server has promised.
    pub standing: Standing,
    /// The newest process of each peer, by server.
    pub peers: Vec<Identity>,
}

/// Whether a directory remembers what its server has promised, and what becomes of it if not.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Standing {
    /// It does.
    #[default]
    Sound,
    /// A peer has met a later process of this directory: it is an old copy. At the next start its
    /// files are set aside.
    OldCopy,
    /// A majority has come to another state than its node. At the next start its files are set
    /// aside.
    Contradicted(Divergence),
    /// It is being made from a snapshot, and that has not come to its end: it doesn't serve.
    Unfinished,
    /// Its files are being set aside: whatever is still in its place moves, and is not looked at.
    SettingAside(Aside),
    /// Its files were set aside, and it was begun anew under another incarnation. That was not yet
    /// admitted to the cluster.
    Recovering(Aside),
}

/// Where a directory's files were put, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aside {
    /// The number of the directory that keeps them.
    pub number: u32,
    /// What was found, on one line.
    pub why: String,
}

impl Aside {
    /// For what was found; what is longer than a line may be is cut.
    pub fn new(number: u32, why: &str) -> Aside {
        let why: String = why.escape_debug().take(limits::ASIDE_REASON_CHARS).collect();
        Aside { number, why }
    }

    fn parse(text: &str) -> Option<Aside> {
        let (number, why) = text.split_once(' ')?;
        Some(Aside { number: number.parse().ok()?, why: why.to_owned() })
    }
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.why)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Sound => f.write_str("sound"),
            Standing::OldCopy => f.write_str("old-copy"),
            Standing::Contradicted(Divergence { index, own, majority }) => {
                write!(f, "contradicted {index} {own:016x} {majority:016x}")
            }
            Standing::Unfinished => f.write_str("unfinished"),
            Standing::SettingAside(aside) => write!(f, "setting-aside {aside}"),
            Standing::Recovering(aside) => write!(f, "recovering {aside}"),
        }
    }
}

impl Standing {
    fn parse(text: &str) -> Option<Standing> {
        match text {
            "sound" => return Some(Standing::Sound),
            "old-copy" => return Some(Standing::OldCopy),
            "unfinished" => return Some(Standing::Unfinished),
            _ => {}
        }
        match text.split_once(' ')? {
            ("contradicted", fields) => {
                let hex = |text| u64::from_str_radix(text, 16).ok();
                let (index, digests) = fields.split_once(' ')?;
                let (own, majority) = digests.split_once(' ')?;
                let index = LogIndex(index.parse().ok()?);
                let (own, majority) = (hex(own)?, hex(majority)?);
                Some(Standing::Contradicted(Divergence { index, own, majority }))
            }
            ("setting-aside", aside) => Aside::parse(aside).map(Standing::SettingAside),
            ("recovering", aside) => Aside::parse(aside).map(Standing::Recovering),
            _ => None,
        }
    }
}

/// Where the file is.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("meta")
}

fn temporary(directory: &Path) -> PathBuf {
    directory.join("meta.tmp")
}

fn sync_names(disk: &mut dyn Disk, directory: &Path) -> Result<(), StorageError> {
    let names = disk.open(directory, Open::Directory)?;
    let synced = disk.sync(names);
    disk.close(names);
    Ok(synced?)
}

impl Meta {
    fn render(&self) -> String {
        let mut text = format!(
            "{FORMAT}\ncluster {:016x} {}\nserver {}\nincarnation {:016x}\nboot {}\nstanding {}\n",
            self.named.0,
            self.cluster_name,
            self.server,
            self.incarnation.0,
            self.boot,
            self.standing
        );
        if self.lineage != Lineage::ZERO {
            text.push_str(&format!("lineage {:016x}\n", self.lineage.0));
        }
        for peer in &self.peers {
            let Identity { server, incarnation, boot, nonce, .. } = peer;
            let line = format!("peer {server} {:016x} {boot} {:016x}\n", incarnation.0, nonce.0);
            text.push_str(&line);
        }
        let sum = crc32fast::hash(text.as_bytes());
        writeln!(text, "crc32 {sum:08x}").expect("writing to a string cannot fail");
        text
    }

    /// Puts this in place of what was there, durably.
    ///
    /// # Errors
    /// The disk's. Final: what is there now is not known.
    pub fn replace(&self, disk: &mut dyn Disk, directory: &Path) -> Result<(), StorageError> {
        self.put(disk, directory)?;
        sync_names(disk, directory)
    }

    /// The same for what can wait: false where the disk is full, and what was there is there still.
    ///
    /// # Errors
    /// As [`Meta::replace`]; also where it is the name that cannot be made durable.
    pub fn replace_if_room(
        &self,
        disk: &mut dyn Disk,
        directory: &Path,
    ) -> Result<bool, StorageError> {
        match self.put(disk, directory) {
            Err(error) if error.is_full() => {
                // What was written of it takes space that others need.
                let temporary = temporary(directory);
                if disk.kind(&temporary)?.is_some() {
                    disk.remove(&temporary)?;
                }
                Ok(false)
            }
            put => {
                put?;
                sync_names(disk, directory)?;
                Ok(true)
            }
        }
    }

    /// Puts this in place of what was there; its name may not be durable.
    fn put(&self, disk: &mut dyn Disk, directory: &Path) -> Result<(), DiskError> {
        let temporary = temporary(directory);
        let file = disk.open(&temporary, Open::New)?;
        let written =
            disk.write_at(file, 0, self.render().as_bytes()).and_then(|()| disk.sync(file));
        disk.close(file);
        written?;
        disk.rename(&temporary, &path(directory))
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// The disk's, or what is there is not a sound meta file of this version.
    pub fn read(disk: &mut dyn Disk, directory: &Path) -> Result<Option<Meta>, StorageError> {
        let path = path(directory);
        match disk.kind(&path)? {
            None => return Ok(None),
            Some(FileKind::Regular) => {}
            Some(_) => return Err(StorageError::corrupt(&path, 0, "not a regular file")),
        }
        let file = disk.open(&path, Open::Existing)?;
        let mut bytes = vec![0; limits::META_BYTES + 1];
        let read = disk.read_at(file, 0, &mut bytes);
        disk.close(file);
        bytes.truncate(read?);
        parse(&path, &bytes).map(Some)
    }

    /// The directory belongs to this lineage from now on, and so do the peers that it has met.
    pub fn adopt(&mut self, lineage: Lineage) {
        self.lineage = lineage;
        self.cluster = self.named.of_lineage(lineage);
        for peer in &mut self.peers {
            peer.cluster = self.cluster;
        }
    }

    /// Takes note of a peer's process, unless one with a higher boot of the same directory is
    /// known. True if that changed anything.
    ///
    /// # Errors
    /// [`StorageError::TooManyPeers`].
    pub fn note_peer(&mut self, directory: &Path, peer: Identity) -> Result<bool, StorageError> {
        match self.peers.binary_search_by_key(&peer.server, |known| known.server) {
            Ok(at) => {
                let known = &mut self.peers[at];
                let older = known.incarnation == peer.incarnation && peer.boot < known.boot;
                let changed = !older && *known != peer;
                if changed {
                    *known = peer;
                }
                Ok(changed)
            }
            Err(_) if self.peers.len() >= limits::KNOWN_PEERS => {
                let file = path(directory);
                Err(StorageError::TooManyPeers { file })
            }
            Err(at) => {
                self.peers.insert(at, peer);
                Ok(true)
            }
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Meta, StorageError> {
    let corrupt = |offset: usize, what| StorageError::corrupt(path, offset as u64, what);
    if bytes.len() > limits::META_BYTES {
        return Err(corrupt(limits::META_BYTES, "longer than a meta file may be"));
    }
    let sum_line = "crc32 00000000\n".len();
    let body = bytes.len().checked_sub(sum_line);
    let body = body.ok_or_else(|| corrupt(bytes.len(), "cut short"))?;
    let sum = format!("crc32 {:08x}\n", crc32fast::hash(&bytes[..body]));
    if bytes[body..] != *sum.as_bytes() {
        return Err(corrupt(body, "the checksum doesn't match"));
    }
    let text = std::str::from_utf8(&bytes[..body]).map_err(|_| corrupt(0, "not text"))?;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != FORMAT {
        let what = format!("its format is {first:?}, this program's is {FORMAT:?}");
        return Err(StorageError::foreign(path, 0, what));
    }
    parse_lines(&mut lines).ok_or_else(|| corrupt(0, "a line is not what this format has"))
}

fn parse_lines<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Meta> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (cluster, name) = lines.next()?.strip_prefix("cluster ")?.split_once(' ')?;
    let named = ClusterId(hex(cluster)?);
    let mut meta = Meta {
        named,
        cluster: named,
        lineage: Lineage::ZERO,
        cluster_name: name.to_owned(),
        server: ServerId(lines.next()?.strip_prefix("server ")?.parse().ok()?),
        incarnation: Incarnation(hex(lines.next()?.strip_prefix("incarnation ")?)?),
        boot: Boot(lines.next()?.strip_prefix("boot ")?.parse().ok()?),
        standing: Standing::parse(lines.next()?.strip_prefix("standing ")?)?,
        peers: Vec::new(),
    };
    for line in lines {
        if let Some(number) = line.strip_prefix("lineage ") {
            // Its line comes before those of the peers, who are of the same one.
            meta.adopt(Lineage(hex(number)?));
            continue;
        }
        let mut fields = line.strip_prefix("peer ")?.split(' ');
        meta.peers.push(Identity {
            cluster: meta.cluster,
            server: ServerId(fields.next()?.parse().ok()?),
            incarnation: Incarnation(hex(fields.next()?)?),
            boot: Boot(fields.next()?.parse().ok()?),
            nonce: Nonce(hex(fields.next()?)?),
        });
    }
    Some(meta)
}
