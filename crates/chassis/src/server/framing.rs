//! Finds where each request's head begins and ends in the bytes of a connection, and refuses two things that the HTTP
//! library accepts: a line of a head that ends without CR, and a transfer coding that no service here decodes. A proxy
//! in front may read these differently, and then one caller's bytes would become another's request. Knows only the two
//! headers for a body's length; the library refuses all other mistakes.

/// Bytes that are kept of an incomplete line; the library refuses a longer head.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Why reading stops at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// RFC 9112, 2.2: a recipient may accept a bare LF as the end of a line, and then two recipients disagree.
    BareLineFeed,
    /// RFC 9112, 6.1: more than one `chunked`.
    ChunkedTwice,
    /// RFC 9112, 6.1: a coding that is not implemented.
    UnknownCoding,
}

impl Malformed {
    /// The complete answer, as bytes: it is sent below the library, which has refused nothing.
    pub(super) fn answer(self) -> &'static [u8] {
        match self {
            Self::BareLineFeed | Self::ChunkedTwice => {
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            }
            Self::UnknownCoding => {
                b"HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Framing {
    at: At,
    /// The earlier bytes of the current line.
    line: Vec<u8>,
    head: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    /// Bytes of a body, or of a chunk and the line end after it.
    Data {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailer,
    /// The bytes can no longer be followed: the library refuses this request.
    Lost,
}

/// The contents of a head's lines so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    has_lines: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self { at: At::Head, line: Vec::new(), head: Head::default() }
    }

    /// Follows the bytes that were read.
    ///
    /// # Errors
    /// The mistake, and how many of these bytes come before the request with the mistake.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), (usize, Malformed)> {
        let (mut from, mut head_from) = (0, 0);
        while from < bytes.len() {
            let rest = &bytes[from..];
            match self.at {
                At::Lost => return Ok(()),
                At::Data { left, chunked } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    from += taken;
                    self.at = match left - taken as u64 {
                        0 if chunked => At::ChunkSize,
                        0 => At::Head,
                        left => At::Data { left, chunked },
                    };
                    head_from = from;
                }
                At::Head | At::ChunkSize | At::Trailer => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        return self.append_to_line(rest);
                    };
                    from += end + 1;
                    let line = std::mem::take(&mut self.line);
                    let read = match line.is_empty() {
                        true => self.line(&rest[..end]),
                        false => self.line(&[&line, &rest[..end]].concat()),
                    };
                    read.map_err(|malformed| (head_from, malformed))?;
                    if self.at == At::Head && !self.head.has_lines {
                        head_from = from;
                    }
                }
            }
        }
        Ok(())
    }

    fn append_to_line(&mut self, part: &[u8]) -> Result<(), (usize, Malformed)> {
        if self.line.len() + part.len() > LINE_BYTES_MAX {
            (self.at, self.line) = (At::Lost, Vec::new());
        } else {
            self.line.extend_from_slice(part);
        }
        Ok(())
    }

    /// Follows one line, without its LF.
    fn line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let Some(line) = line.strip_suffix(b"\r") else {
            if self.at == At::Head {
                return Err(Malformed::BareLineFeed);
            }
            self.at = At::Lost;
            return Ok(());
        };
        match self.at {
            At::Head if !line.is_empty() => return self.head_line(line),
            // An empty line before a request is skipped by the library as well.
            At::Head if !self.head.has_lines => {}
            At::Head => {
                let Head { length, chunked, .. } = std::mem::take(&mut self.head);
                self.at = match (chunked, length) {
                    (true, _) => At::ChunkSize,
                    (false, None | Some(0)) => At::Head,
                    (false, Some(left)) => At::Data { left, chunked: false },
                };
            }
            At::ChunkSize => self.at = after_chunk_size(line),
            At::Trailer if line.is_empty() => self.at = At::Head,
            At::Trailer | At::Data { .. } | At::Lost => {}
        }
        Ok(())
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let is_first = !std::mem::replace(&mut self.head.has_lines, true);
        let Some(colon) = line.iter().position(|byte| *byte == b':').filter(|_| !is_first) else {
            return Ok(());
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // A sign is no digit, although the standard library's parser accepts a plus sign.
            let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
            let length = digits.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
            if length.is_none() {
                self.at = At::Lost;
            }
            self.head.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                match coding {
                    b"" => {}
                    coding if !coding.eq_ignore_ascii_case(b"chunked") => {
                        return Err(Malformed::UnknownCoding);
                    }
                    _ if self.head.chunked => return Err(Malformed::ChunkedTwice),
                    _ => self.head.chunked = true,
                }
            }
        }
        Ok(())
    }
}

fn after_chunk_size(line: &[u8]) -> At {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(size).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    match size.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        None => At::Lost,
        Some(0) => At::Trailer,
        Some(size) => At::Data { left: size.saturating_add(2), chunked: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for these bytes, in one piece and byte by byte.
    fn read(text: &str) -> Result<(), Malformed> {
        let whole = Framing::new().read(text.as_bytes()).map_err(|(_, malformed)| malformed);
        let mut framing = Framing::new();
        let pieces: Result<(), _> = text.bytes().try_for_each(|byte| framing.read(&[byte]));
        assert_eq!(whole, pieces.map_err(|(_, malformed)| malformed), "{text:?}");
        whole
    }

    #[test]
    fn a_line_of_a_head_ends_with_cr_and_lf() {
        assert_eq!(
            read("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n"),
            Ok(())
        );
        assert_eq!(read("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), Ok(()));
        for text in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nokGET / HTTP/1.1\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nT: t\r\n\r\nGET / HTTP/1.1\n\r\n",
        ] {
            assert_eq!(read(text), Err(Malformed::BareLineFeed), "{text:?}");
        }
    }

    #[test]
    fn only_the_chunked_coding_is_known_and_only_once() {
        for (codings, said) in [
            ("chunked", Ok(())),
            ("Chunked", Ok(())),
            (", chunked", Ok(())),
            ("xchunked", Err(Malformed::UnknownCoding)),
            ("gzip, chunked", Err(Malformed::UnknownCoding)),
            ("chunked, identity", Err(Malformed::UnknownCoding)),
            ("chunked, chunked", Err(Malformed::ChunkedTwice)),
            ("chunked\r\ntransfer-encoding: chunked", Err(Malformed::ChunkedTwice)),
        ] {
            let head = format!("POST / HTTP/1.1\r\nTransfer-Encoding: {codings}\r\n\r\n");
            assert_eq!(read(&head), said, "{codings}");
        }
    }

    #[test]
    fn bytes_of_the_requests_before_are_reported_apart() {
        let before = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok";
        let mut framing = Framing::new();
        let all = format!("{before}GET / HTTP/1.1\n");
        assert_eq!(framing.read(all.as_bytes()), Err((before.len(), Malformed::BareLineFeed)));
    }

    #[test]
    fn what_cannot_be_followed_is_left_to_the_library() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: 47, 47\r\n\r\n\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002f\r\n\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(text), Ok(()), "{text:?}");
        }
    }
}
