//! Converts a file's bytes to UTF-8, from the encoding that its owner names. A contradicting byte order mark is
//! reported, never followed. Knows no format.

use std::io::{self, BufRead, BufReader, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::file::Start;
use super::row::Fault;
use super::settings::{Dialect, NamedEncoding};

const BUFFER: usize = 64 * 1024;

/// Why the encoding that was named cannot be the file's, read from its beginning. In a single-byte encoding any bytes
/// are text, so that a file of UTF-8 would give other references, and other invoices, than it gave as UTF-8. Text of
/// such an encoding is no UTF-8 from its first letter beyond ASCII on, so that little of it is read here.
pub(crate) fn check_encoding(mut file: impl Read, dialect: &Dialect) -> io::Result<Option<Fault>> {
    let Some(NamedEncoding { encoding, .. }) =
        dialect.encoding.filter(|named| named.encoding.is_single_byte())
    else {
        return Ok(None);
    };
    let mut decoder = UTF_8.new_decoder_without_bom_handling();
    // Twice the size holds what is decoded of one buffer and of a letter that began in the one before.
    let (mut bytes, mut text) = (vec![0; BUFFER], vec![0; 2 * BUFFER]);
    let mut is_ascii = true;
    loop {
        let count = file.read(&mut bytes)?;
        let bytes = &bytes[..count];
        is_ascii &= bytes.is_ascii();
        let (result, ..) = decoder.decode_to_utf8_without_replacement(bytes, &mut text, count == 0);
        if result != DecoderResult::InputEmpty || count == 0 && is_ascii {
            return Ok(None);
        }
        if count == 0 {
            let name = encoding.name();
            let reason = format!(
                "is UTF-8 in all its letters beyond ASCII, and not {name}: give --encoding utf-8; if it is {name} all \
                 the same, save it as UTF-8"
            );
            return Ok(Some(Fault::new(1, "encoding", reason)));
        }
    }
}

/// UTF-32, by its byte order mark or by the NUL bytes of a first letter of ASCII; what begins so is mistaken for UTF-16.
pub(crate) fn is_utf_32(start: &[u8]) -> bool {
    matches!(
        start,
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [1..=255, 0, 0, 0, ..] | [0, 0, 0, 1..=255, ..]
    )
}

/// What to do about it.
pub(crate) const UTF_32: &str = "is UTF-32, which is not read: save the file as UTF-8";

/// The file's text, or why it cannot be decoded.
pub(crate) fn decode_to_utf8(
    mut file: impl BufRead + Send + 'static,
    dialect: &Dialect,
) -> io::Result<Result<Start, Fault>> {
    let (marked, mark_len, has_nul) = {
        let start = file.fill_buf()?;
        if is_utf_32(start) {
            return Ok(Err(Fault::new(1, "encoding", UTF_32)));
        }
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
        let mut start = decode_to_utf8(bytes, &dialect(profile)).unwrap().map_err(|fault| fault.reason)?;
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
    fn a_single_byte_encoding_of_a_file_of_utf_8_is_refused_wherever_its_letters_stand() {
        let long = |end: &[u8]| [&b"a".repeat(BUFFER - 1)[..], end].concat();
        for (bytes, profile, is_contradicted) in [
            (b"R-\xc3\xbc1".to_vec(), "encoding = 'windows-1252'", true),
            (b"R-\xc3\xbc1".to_vec(), "encoding = 'koi8-r'", true),
            (b"R-\xc3\xbc1".to_vec(), "encoding = 'utf-8'", false),
            (b"R-\xc3\xbc1".to_vec(), "", false),
            (b"R-\xc3\xbc1".to_vec(), "encoding = 'shift_jis'", false),
            (b"R-\xfc1 \xc3\xbc".to_vec(), "encoding = 'windows-1252'", false),
            (b"R-\xc3\xbc \xfc".to_vec(), "encoding = 'windows-1252'", false),
            (b"R-\xc3\xbc \xc3".to_vec(), "encoding = 'windows-1252'", false),
            (b"plain".to_vec(), "encoding = 'windows-1252'", false),
            (long(b"\xc3\xbc"), "encoding = 'windows-1252'", true),
            (long(b"\xc3\xbc\xfc"), "encoding = 'windows-1252'", false),
        ] {
            let fault = check_encoding(bytes.as_slice(), &dialect(profile)).unwrap();
            let says = fault.map(|fault| fault.reason.contains("--encoding utf-8"));
            assert_eq!(says, is_contradicted.then_some(true), "{profile}");
        }
    }

    #[test]
    fn another_encoding_than_the_named_one_is_reported_with_what_to_give() {
        for (bytes, profile, part) in [
            (&b"\xff\xfea\0"[..], "", "--encoding utf-16le"),
            (b"\xfe\xff\0a", "", "--encoding utf-16be"),
            (b"\xfe\xff\0a", "encoding = 'utf-16le'", "--encoding utf-16be"),
            (b"\xef\xbb\xbfa", "encoding = 'windows-1252'", "--encoding utf-8"),
            (b"\xff\xfe\0\0a\0\0\0", "", "UTF-32"),
            (b"\xff\xfe\0\0a\0\0\0", "encoding = 'utf-16'", "UTF-32"),
            (b"\0\0\xfe\xff\0\0\0a", "", "UTF-32"),
            (b"a\0\0\0", "", "UTF-32"),
            (b"\0\0\0a", "encoding = 'utf-16be'", "UTF-32"),
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
