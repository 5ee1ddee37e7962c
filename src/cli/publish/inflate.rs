//! Compressed input, known by its first bytes, and input that is no text of UTF-8.

use std::io::{self, Cursor, ErrorKind, Read};

use flate2::read::MultiGzDecoder;

/// An input that a thread reads.
pub(super) type Input = Box<dyn Read + Send>;

/// Bytes that tell what an input is.
pub(super) const HEAD: usize = 6;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Formats that are known and not read, by their first bytes. UTF-32 begins like UTF-16.
const OTHERS: [(&[u8], &str); 13] = [
    (b"\xff\xfe\0\0", "UTF-32 text"),
    (b"\0\0\xfe\xff", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"{\0", "UTF-16 text"),
    (b"[\0", "UTF-16 text"),
    (b"\0{", "UTF-16 text"),
    (b"\0[", "UTF-16 text"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x04\x22\x4d\x18", "an lz4 archive"),
];

/// Whether these first bytes are those of an archive that is inflated.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(GZIP) || is_zstd(head)
}

/// A format that cannot be read, by the first bytes of an input.
pub(super) fn other_format(head: &[u8]) -> Option<&'static str> {
    let known = OTHERS.iter().find(|(magic, _)| head.starts_with(magic));
    let wide =
        matches!(head, [1..=255, 0, 1..=255, 0, ..] | [0, 1..=255, 0, 1..=255, ..]).then_some("UTF-16 text");
    known.map(|(_, name)| *name).or(wide).or_else(|| head.contains(&0).then_some("binary data"))
}

/// The input as it is, or what its gzip or zstd archives hold, one behind the other.
///
/// # Errors
/// When its first bytes cannot be read.
pub(super) fn inflated(mut input: Input) -> io::Result<Input> {
    let head = first_bytes(&mut input)?;
    let (gzip, zstd) = (head.starts_with(GZIP), is_zstd(&head));
    let whole = Cursor::new(head).chain(input);
    if gzip {
        Ok(Box::new(Named { archive: "gzip", inner: MultiGzDecoder::new(whole) }))
    } else if zstd {
        Ok(Box::new(Named { archive: "zstd", inner: zstd::Decoder::new(whole)? }))
    } else {
        Ok(Box::new(whole))
    }
}

/// A zstd frame, or one that is skipped, which an archive may begin with.
fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(ZSTD) || matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// The first bytes of an input; fewer at its end.
pub(super) fn first_bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    // An event on a line of its own is longer than this, so that a slow producer's first one is not held up.
    input.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A decoder whose errors say which archive they are about.
struct Named<R> {
    archive: &'static str,
    inner: R,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => error,
            ErrorKind::UnexpectedEof => {
                io::Error::new(error.kind(), format!("the {} archive is cut off", self.archive))
            }
            kind => io::Error::new(kind, format!("the {} archive is damaged: {error}", self.archive)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::publish::tests::{gzip, zstd};

    fn read(bytes: &[u8]) -> (Vec<u8>, Option<String>) {
        let mut text = Vec::new();
        let input: Input = Box::new(Cursor::new(bytes.to_vec()));
        let error = inflated(input).and_then(|mut inner| inner.read_to_end(&mut text)).err();
        (text, error.map(|error| error.to_string()))
    }

    #[test]
    fn archives_one_behind_the_other_are_one_text() {
        for pack in [gzip, zstd] {
            let whole = [pack(b"one "), pack(b""), pack(b"two")].concat();
            assert!(is_compressed(&whole));
            assert_eq!(read(&whole), (b"one two".to_vec(), None));
        }
        let skipped = [b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(b"one")].concat();
        assert_eq!(read(&skipped), (b"one".to_vec(), None));
        assert_eq!(read(b"{}"), (b"{}".to_vec(), None));
        assert_eq!(read(b""), (Vec::new(), None));
    }

    #[test]
    fn an_archive_that_is_cut_off_anywhere_is_an_error() {
        for (pack, name) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd")] {
            let (first, whole) = (pack(b"one"), [pack(b"one"), pack(b"two")].concat());
            for length in 4..whole.len() {
                let (text, error) = read(&whole[..length]);
                if length == first.len() {
                    assert_eq!((text, error), (b"one".to_vec(), None));
                } else {
                    assert_eq!(error.unwrap(), format!("the {name} archive is cut off"), "{length}");
                }
            }
            let mut damaged = pack(&[b'x'; 1000]);
            let last = damaged.len() - 1;
            damaged[last] ^= 1;
            if name == "gzip" {
                assert!(read(&damaged).1.unwrap().starts_with("the gzip archive is damaged: "));
            }
        }
    }

    #[test]
    fn formats_that_are_not_read_have_names() {
        for (bytes, name) in [
            (&b"\xff\xfe{\0\"\0"[..], "UTF-16 text"),
            (b"\0{\0\"\0t", "UTF-16 text"),
            (b"\xff\xfe\0\0{\0", "UTF-32 text"),
            (b"t\0o\0p\0", "UTF-16 text"),
            (b"\0t\0o\0p", "UTF-16 text"),
            (b"BZh91AY", "a bzip2 archive"),
            (b"\x7fELF\0\0", "binary data"),
        ] {
            assert_eq!(other_format(bytes), Some(name));
        }
        assert_eq!(other_format(b"{\"top"), None);
        assert_eq!(other_format(b""), None);
    }
}
