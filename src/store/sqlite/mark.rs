//! The high-water mark that a server leaves in the lock file beside its store: the last position that is
//! synced, and whether the server stopped cleanly. The next start learns from it whether the file lacks
//! events that clients may have read (`history`).
//!
//! The mark is one line of text with a checksum, padded to [`BYTES`], so that each write replaces all of
//! it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::files;
use crate::config::Durability;
use crate::domain::HistoryId;

/// The length of a mark: less than a sector of any disk, which is written whole or not at all.
const BYTES: usize = 256;

/// The longest boot id that is kept; Linux writes 36 bytes.
const BOOT_BYTES: usize = 64;

/// The first word of a mark; a later format has another one.
const FORMAT: &str = "sekali-mark-1";

/// The shortest time between two marks of a running server.
const PAUSE: Duration = Duration::from_secs(1);

/// What a server says of its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) history: HistoryId,
    /// The last position that is certainly synced.
    pub(super) last_pos: u64,
    pub(super) durability: Durability,
    /// Whether a server runs, or did when it was killed.
    pub(super) running: bool,
    /// Names the time from one start of the machine to the next.
    pub(super) booted: String,
}

/// What the last server of a store left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    /// No server kept a mark here: there is no lock file, or one that an earlier version left empty.
    Nothing,
    /// Its mark.
    Mark(Mark),
    /// A mark that cannot be read: it is damaged, or a later version wrote it.
    Unreadable,
}

/// Keeps the mark of a store that is served.
pub(super) struct Marker {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    mark: Mark,
    written_at: Instant,
    /// The lock file; `None` until it could be written.
    file: Option<File>,
}

impl Left {
    /// Reads what the last server of this store left.
    pub(super) fn read(store: &Path) -> Self {
        match fs::read(lock_path(store)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Nothing,
            // A power cut may leave zeros in place of a mark that was not synced; a server with relaxed
            // durability syncs its first one.
            Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => Self::Nothing,
            Ok(bytes) => {
                str::from_utf8(&bytes).ok().and_then(Mark::parse).map_or(Self::Unreadable, Self::Mark)
            }
            Err(_) => Self::Unreadable,
        }
    }
}

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let (said, sum) = text.trim_end().rsplit_once(' ')?;
        if u64::from_str_radix(sum, 16).ok()? != xxh3_64(said.as_bytes()) {
            return None;
        }
        let mut words = said.split(' ');
        let mut next = |name: &str| words.next()?.strip_prefix(name);
        next(FORMAT)?;
        Some(Self {
            history: HistoryId::parse(next("history=")?)?,
            last_pos: next("last_pos=")?.parse().ok()?,
            durability: match next("durability=")? {
                "full" => Durability::Full,
                _ => Durability::Relaxed,
            },
            running: next("running=")? == "yes",
            booted: next("boot=")?.to_owned(),
        })
    }

    fn text(&self) -> String {
        let Self { history, last_pos, durability, running, booted } = self;
        let (durability, running) = (durability.as_str(), if *running { "yes" } else { "no" });
        let said = format!(
            "{FORMAT} history={history} last_pos={last_pos} durability={durability} running={running} \
             boot={booted}"
        );
        let sum = xxh3_64(said.as_bytes());
        let line = format!("{said} {sum:016x}");
        format!("{line:<width$}\n", width = BYTES - 1)
    }
}

impl Marker {
    /// Begins to keep the mark of a store whose lock this process holds. A lock file that cannot be
    /// written now, as on a full disk, is tried again later: the store can be read meanwhile.
    pub(super) fn begin(store: &Path, mark: Mark) -> Self {
        let path = lock_path(store);
        let file = first(&path, &mark).inspect_err(|error| {
            let lock = path.display();
            tracing::warn!(%lock, %error, "the lock file cannot be written, and is tried again each second; \
                until then a restore of the store is not noticed");
        });
        let state = State { mark, written_at: Instant::now(), file: file.ok() };
        Self { path, state: Mutex::new(state) }
    }

    /// Whether the lock file says that a server runs. Where it does not, nothing tells the next start
    /// that commits which were not synced may be lost.
    pub(super) fn is_kept(&self) -> bool {
        self.lock().file.is_some()
    }

    /// The store is synced up to this position now. Written where the last mark is old enough, and by a
    /// later call otherwise.
    pub(super) fn synced(&self, last_pos: u64, now: Instant) {
        let mut state = self.lock();
        let is_due = now.saturating_duration_since(state.written_at) >= PAUSE;
        if is_due && (last_pos > state.mark.last_pos || state.file.is_none()) {
            state.mark.last_pos = last_pos;
            state.written_at = now;
            self.write(&mut state);
        }
    }

    /// The server has stopped cleanly, with everything up to this position synced.
    pub(super) fn finish(&self, last_pos: u64) {
        let mut state = self.lock();
        (state.mark.last_pos, state.mark.running) = (last_pos, false);
        self.write(&mut state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State) {
        // Not synced: after a power cut an older mark may be left, which asks for fewer new histories. A
        // disk that takes no mark is full or failing, and each commit says so.
        let written = match &state.file {
            Some(file) => file.write_all_at(state.mark.text().as_bytes(), 0),
            None => first(&self.path, &state.mark).map(|file| state.file = Some(file)),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "the high-water mark beside the store cannot be written");
        }
    }
}

/// Writes the first mark of a server. With relaxed durability it is on disk when this returns: after a
/// power cut nothing else says that a server ran.
fn first(path: &Path, mark: &Mark) -> io::Result<File> {
    let file = files::open(path)?;
    file.write_all_at(mark.text().as_bytes(), 0)?;
    if mark.durability == Durability::Relaxed {
        file.sync_data()?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(file)
}

/// Names the time since the machine was started; empty where the system does not say.
pub(super) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().chars().filter(char::is_ascii_graphic).take(BOOT_BYTES).collect()
}

/// The file of the lock, which also holds the mark.
pub(super) fn lock_path(store: &Path) -> PathBuf {
    let mut name: OsString = store.into();
    name.push(".lock");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(last_pos: u64, running: bool) -> Mark {
        let history = HistoryId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let booted = "b".repeat(BOOT_BYTES);
        Mark { history, last_pos, durability: Durability::Relaxed, running, booted }
    }

    #[test]
    fn a_mark_reads_back_and_always_has_the_same_length() {
        for mark in [mark(0, true), mark(u64::MAX, false)] {
            assert_eq!(mark.text().len(), BYTES);
            assert_eq!(Mark::parse(&mark.text()), Some(mark));
        }
    }

    #[test]
    fn a_mark_that_was_changed_or_cut_says_nothing() {
        let text = mark(17, true).text();
        for wrong in ["", "\n", &text.replace("17", "18"), &text[..40], "sekali-mark-2 history=a 00"] {
            assert_eq!(Mark::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_store_that_stopped_cleanly_says_how_far_it_was_synced() {
        let home = tempfile::tempdir().unwrap();
        let store = home.path().join("log.db");
        assert_eq!(Left::read(&store), Left::Nothing);
        fs::write(lock_path(&store), "").unwrap();
        assert_eq!(Left::read(&store), Left::Nothing, "an earlier version left it empty");
        let marker = Marker::begin(&store, mark(3, true));
        assert_eq!(Left::read(&store), Left::Mark(mark(3, true)));
        let begun = marker.lock().written_at;
        marker.synced(5, begun + PAUSE / 2);
        assert_eq!(Left::read(&store), Left::Mark(mark(3, true)), "at most one mark a second");
        marker.synced(6, begun + PAUSE);
        assert_eq!(Left::read(&store), Left::Mark(mark(6, true)));
        marker.finish(7);
        assert_eq!(Left::read(&store), Left::Mark(mark(7, false)));
        fs::write(lock_path(&store), [0; BYTES]).unwrap();
        assert_eq!(Left::read(&store), Left::Nothing, "a power cut left no text");
        for other in [&b"sekali-mark-2 history=a 00"[..], b"\xff"] {
            fs::write(lock_path(&store), other).unwrap();
            assert_eq!(Left::read(&store), Left::Unreadable);
        }
    }

    #[test]
    fn a_lock_file_that_cannot_be_written_is_tried_again() {
        let home = tempfile::tempdir().unwrap();
        let store = home.path().join("log.db");
        let marker = Marker::begin(&store, mark(3, true));
        assert!(!marker.is_kept(), "there is no lock file");
        fs::write(lock_path(&store), "").unwrap();
        let begun = marker.lock().written_at;
        marker.synced(3, begun + PAUSE / 2);
        assert!(!marker.is_kept(), "at most one attempt a second");
        marker.synced(3, begun + PAUSE);
        assert!(marker.is_kept());
        assert_eq!(Left::read(&store), Left::Mark(mark(3, true)));
    }
}
