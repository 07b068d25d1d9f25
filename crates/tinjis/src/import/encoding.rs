//! Converts a file's bytes to UTF-8, from the encoding that its owner names. A contradicting byte order mark is
//! reported, never followed. Knows no format.

use std::io::{self, BufRead, BufReader, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::file::Start;
use super::row::Fault;
use super::settings::{Dialect, NamedEncoding};

const BUFFER: usize = 64 * 1024;

/// The file's text, or why it cannot be decoded.
pub(crate) fn utf8(
    mut file: impl BufRead + Send + 'static,
    dialect: &Dialect,
) -> io::Result<Result<Start, Fault>> {
    let (marked, mark_len, has_nul) = {
        let start = file.fill_buf()?;
        let (marked, mark_len) =
            Encoding::for_bom(start).map_or((None, 0), |(marked, len)| (Some(marked), len));
        (marked, mark_len, start.iter().take(2).any(|byte| *byte == 0))
    };
    let named = dialect.encoding.unwrap_or(NamedEncoding { encoding: UTF_8, order_by_mark: false });
    let is_utf_16 = |encoding: &'static Encoding| encoding == UTF_16LE || encoding == UTF_16BE;
    let encoding = match marked {
        Some(marked) if marked == named.encoding || named.order_by_mark && is_utf_16(marked) => marked,
        Some(marked) => {
            let reason = format!(
                "is {} by its byte order mark, and not {}: give --encoding {}",
                marked.name(),
                named.encoding.name(),
                marked.name().to_ascii_lowercase()
            );
            return Ok(Err(Fault::new(1, "encoding", reason)));
        }
        None if has_nul && !is_utf_16(named.encoding) => {
            let reason =
                "begins with a NUL byte among letters, as UTF-16 does: give --encoding utf-16le or utf-16be";
            return Ok(Err(Fault::new(1, "encoding", reason)));
        }
        None => named.encoding,
    };
    file.consume(mark_len);
    if encoding == UTF_8 {
        return Ok(Ok(Box::new(file)));
    }
    let decoder = encoding.new_decoder_without_bom_handling();
    let transcoder =
        Transcoder { inner: file, decoder, text: vec![0; BUFFER], from: 0, to: 0, is_over: false };
    Ok(Ok(Box::new(BufReader::with_capacity(BUFFER, transcoder))))
}

/// A reader that decodes while it reads.
struct Transcoder<R> {
    inner: R,
    decoder: Decoder,
    text: Vec<u8>,
    from: usize,
    to: usize,
    is_over: bool,
}

impl<R: BufRead> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.from == self.to && !self.is_over {
            let bytes = self.inner.fill_buf()?;
            let is_last = bytes.is_empty();
            let (result, read, written) =
                self.decoder.decode_to_utf8_without_replacement(bytes, &mut self.text, is_last);
            self.inner.consume(read);
            (self.from, self.to) = (0, written);
            match result {
                DecoderResult::Malformed(..) => {
                    let name = self.decoder.encoding().name();
                    let why = format!("it holds bytes that are no {name}; name the right --encoding");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                DecoderResult::InputEmpty => self.is_over = is_last,
                DecoderResult::OutputFull => {}
            }
        }
        let count = (self.to - self.from).min(buffer.len());
        buffer[..count].copy_from_slice(&self.text[self.from..self.from + count]);
        self.from += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::dialect;
    use super::*;

    fn read(bytes: &'static [u8], profile: &str) -> Result<String, String> {
        let mut start = utf8(bytes, &dialect(profile)).unwrap().map_err(|fault| fault.reason)?;
        let mut text = Vec::new();
        start.read_to_end(&mut text).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn the_named_encoding_is_read_with_and_without_its_mark() {
        for (bytes, profile) in [
            (&b"a\xc3\xa9"[..], ""),
            (b"\xef\xbb\xbfa\xc3\xa9", ""),
            (b"a\xe9", "encoding = 'windows-1252'"),
            (b"a\xe9", "encoding = 'latin1'"),
            (b"\xff\xfea\0\xe9\0", "encoding = 'utf-16'"),
            (b"\xfe\xff\0a\0\xe9", "encoding = 'utf-16'"),
            (b"\xff\xfea\0\xe9\0", "encoding = 'utf-16le'"),
            (b"a\0\xe9\0", "encoding = 'utf-16le'"),
            (b"\0a\0\xe9", "encoding = 'utf-16be'"),
        ] {
            assert_eq!(read(bytes, profile).unwrap(), "a\u{e9}", "{bytes:?} {profile}");
        }
    }

    #[test]
    fn another_encoding_than_the_named_one_is_reported_with_what_to_give() {
        for (bytes, profile, part) in [
            (&b"\xff\xfea\0"[..], "", "--encoding utf-16le"),
            (b"\xfe\xff\0a", "", "--encoding utf-16be"),
            (b"\xfe\xff\0a", "encoding = 'utf-16le'", "--encoding utf-16be"),
            (b"\xef\xbb\xbfa", "encoding = 'windows-1252'", "--encoding utf-8"),
            (b"a\0b\0", "", "--encoding utf-16le"),
            (b"\0a\0b", "encoding = 'windows-1252'", "utf-16be"),
            (b"a\0b", "encoding = 'utf-16le'", "no UTF-16LE"),
            (b"a\xff", "encoding = 'shift_jis'", "no Shift_JIS"),
        ] {
            let why = read(bytes, profile).unwrap_err();
            assert!(why.contains(part), "{bytes:?} {profile}: {why}");
        }
    }
}
