//! An answer's body: decompressed as it comes.
//!
//! The HTTP library's own decompression ends with the first member of a gzip text; a server that
//! compresses piece by piece sends several (RFC 1952, section 2.2).

use std::io::{self, ErrorKind, Write};

use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use crate::source::error::{Excerpt, SourceErrorKind};
use crate::source::format::Reader;

/// Hands the bytes of a body on to `sink`, as the server meant them.
pub(super) enum Body<S: Write> {
    Plain(S),
    Gzip(MultiGzDecoder<S>),
}

impl<S: Write> Body<S> {
    /// For an answer with these headers.
    ///
    /// # Errors
    /// A compression that was not asked for.
    pub(super) fn new(headers: &HeaderMap, sink: S) -> Result<Self, SourceErrorKind> {
        let coding =
            headers.get(CONTENT_ENCODING).map_or(&b""[..], |value| value.as_bytes().trim_ascii());
        match coding.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Plain(sink)),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip(MultiGzDecoder::new(sink))),
            _ => Err(SourceErrorKind::Damaged(format!(
                "it is compressed by {:?}, which was not asked for",
                coding.escape_ascii().to_string()
            ))),
        }
    }

    /// Takes the next bytes as they crossed the wire.
    ///
    /// # Errors
    /// The sink's own, or bytes that can't be decompressed.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(sink) => sink.write_all(chunk),
            Self::Gzip(decoder) => decoder.write_all(chunk),
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// If more should have come, or its checksum is another.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
        }
    }

    pub(super) fn sink(&mut self) -> &mut S {
        match self {
            Self::Plain(sink) => sink,
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }

    /// The sink, after [`Body::finish`].
    ///
    /// # Errors
    /// If the body was not whole.
    pub(super) fn into_sink(self) -> Result<S, SourceErrorKind> {
        match self {
            Self::Plain(sink) => Ok(sink),
            Self::Gzip(decoder) => {
                decoder.finish().map_err(|error| SourceErrorKind::Damaged(error.to_string()))
            }
        }
    }
}

/// Feeds a reader within its bound.
pub(super) struct Bounded<R> {
    reader: R,
    max_bytes: u64,
    /// What ended the reading.
    fault: Option<SourceErrorKind>,
}

impl<R: Reader> Bounded<R> {
    pub(super) fn new(reader: R, max_bytes: u64) -> Self {
        Self { reader, max_bytes, fault: None }
    }

    pub(super) fn into_reader(self) -> R {
        self.reader
    }

    /// Why a write to it, or to what stands before it, failed.
    pub(super) fn why(&mut self, error: &io::Error) -> SourceErrorKind {
        self.fault.take().unwrap_or_else(|| SourceErrorKind::Damaged(error.to_string()))
    }
}

impl<R: Reader> Write for Bounded<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fed = match self.reader.bytes() + bytes.len() as u64 > self.max_bytes {
            true => Err(SourceErrorKind::TooLarge(self.max_bytes)),
            false => self.reader.feed(bytes),
        };
        fed.map(|()| bytes.len()).map_err(|fault| {
            self.fault = Some(fault);
            ErrorKind::Other.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Excerpt {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
